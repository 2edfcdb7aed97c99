{{/* Name of a release's objects: the release's own, with the chart's unless it says it already. At most 50
characters, so that suffixes such as -canary fit into 63. */}}
{{- define "driftline.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels by which Services, policies and controllers find pods; they never change. */}}
{{- define "driftline.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of every object. The chart's version is none: a new one would restart every pod. */}}
{{- define "driftline.labels" -}}
{{ include "driftline.selectorLabels" . }}
app.kubernetes.io/part-of: driftline
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* Service account of the pods. */}}
{{- define "driftline.serviceAccountName" -}}
{{- default (include "driftline.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{/* Service account that Kubernetes hands no token for, unless a pod asks. */}}
{{- define "driftline.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "driftline.serviceAccountName" . }}
  labels: {{- include "driftline.labels" . | nindent 4 }}
  {{- with .Values.serviceAccount.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end -}}
