{{/* Pod Security "restricted". The user is a number: Kubernetes cannot tell whether a name is root. */}}
{{- define "driftline.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "driftline.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* An image by digest: dict repository, digest. */}}
{{- define "driftline.image" -}}
{{ .repository }}@{{ .digest }}
{{- end -}}

{{/* Requests of both, the memory request as its limit: dict cpu, memory. There is no CPU limit: it would slow a pod
down while processors are idle. */}}
{{- define "driftline.resources" -}}
requests:
  cpu: {{ .cpu | quote }}
  memory: {{ .memory | quote }}
limits:
  memory: {{ .memory | quote }}
{{- end -}}

{{/* HTTP probes of a port named http: dict live, ready (paths), startSeconds. */}}
{{- define "driftline.probes" -}}
startupProbe:
  httpGet: {path: {{ .ready }}, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: {{ div (add (int .startSeconds) 4) 5 }}
livenessProbe:
  httpGet: {path: {{ .live }}, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: {{ .ready }}, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
{{- end -}}

{{/* Where pods write, their root being read-only: dict sizeLimit. */}}
{{- define "driftline.scratchVolume" -}}
name: scratch
emptyDir:
  sizeLimit: {{ .sizeLimit | quote }}
{{- end -}}

{{- define "driftline.scratchMount" -}}
name: scratch
mountPath: /tmp
{{- end -}}

{{/* Copies on as many nodes and zones as there are; one that cannot be placed so runs all the same. What it takes are
the labels by which the copies are found, as text. */}}
{{- define "driftline.topologySpread" -}}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- . | nindent 6 }}
- maxSkew: 1
  topologyKey: topology.kubernetes.io/zone
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- . | nindent 6 }}
{{- end -}}

{{/* Keys of a ConfigMap or a Secret as variables of the same name: dict from (configMapKeyRef, secretKeyRef), name, keys;
required: those without which the pod waits, and starts once they are there. */}}
{{- define "driftline.environmentFrom" -}}
{{- range .keys }}
- name: {{ . }}
  valueFrom:
    {{ $.from }}: {name: {{ $.name }}, key: {{ . }}{{ if not (has . ($.required | default list)) }}, optional: true{{ end }}}
{{- end }}
{{- end -}}

{{/* Evict one pod at a time, and one that is not ready at any time: it would block a node's drain for ever.
dict context, name, selector (YAML). */}}
{{- define "driftline.podDisruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .name }}
  labels: {{- include "driftline.labels" .context | nindent 4 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- .selector | nindent 6 }}
{{- end -}}
