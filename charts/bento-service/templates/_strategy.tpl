{{/* How pods of a new release replace those of the old one. */}}
{{- define "bento-service.strategy" -}}
{{- $name := include "driftline.fullname" . -}}
{{- with .Values.strategy -}}
{{- if eq .kind "rolling" -}}
strategy:
  type: RollingUpdate
  rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
{{- else if eq .kind "blueGreen" -}}
{{ include "bento-service.rollback" . }}
strategy:
  blueGreen:
    activeService: {{ $name }}
    previewService: {{ $name }}-preview
    autoPromotionEnabled: {{ .blueGreen.autoPromotion }}
    scaleDownDelaySeconds: 600
    {{- if $.Values.analysis.enabled }}
    # After the switch: a preview has no callers, so nothing could be measured before.
    postPromotionAnalysis: {{- include "bento-service.analysis" $ | nindent 6 }}
    {{- end }}
{{- else -}}
{{ include "bento-service.rollback" . }}
strategy:
  canary:
    maxSurge: 1
    maxUnavailable: 0
    stableService: {{ $name }}-stable
    canaryService: {{ $name }}-canary
    {{- if eq .canary.router "gatewayAPI" }}
    trafficRouting:
      plugins:
        argoproj-labs/gatewayAPI:
          namespace: {{ $.Release.Namespace }}
          httpRoute: {{ $name }}
    {{- end }}
    steps:
      {{- range .canary.steps }}
      - setWeight: {{ .weight }}
      {{- if .pauseSeconds }}
      - pause: {duration: {{ .pauseSeconds }}s}
      {{- end }}
      {{- if $.Values.analysis.enabled }}
      - analysis: {{- include "bento-service.analysis" $ | nindent 10 }}
      {{- end }}
      {{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "bento-service.rollback" -}}
# A new version that does not start is given up, and the old one goes on.
progressDeadlineAbort: true
# What served before is not judged again: a `git revert` replaces all pods at once, without steps and without callers.
rollbackWindow: {revisions: 3}
{{- end -}}

{{- define "bento-service.analysis" -}}
templates:
  - templateName: {{ include "driftline.fullname" . }}
args:
  - {name: version, value: {{ include "bento-service.version" .Values.release | quote }}}
  - name: hash
    valueFrom: {podTemplateHashValue: Latest}
{{- end -}}
