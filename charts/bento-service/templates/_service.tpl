{{/* Labels that tell one part's pods: dict context, component (serving, shadow, test). */}}
{{- define "bento-service.selectorLabels" -}}
{{ include "driftline.selectorLabels" .context }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of an object of one part: dict context, component. */}}
{{- define "bento-service.labels" -}}
{{ include "driftline.labels" .context }}
app.kubernetes.io/component: {{ .component }}
driftline.dev/use-case: {{ .context.Values.release.useCase }}
{{- end -}}

{{/* Version of a release's Bento, as the label service_version of BentoML's metrics has it. */}}
{{- define "bento-service.version" -}}
{{- last (splitList ":" .bento.tag) -}}
{{- end -}}

{{/* Whether the pods belong to a Rollout instead of a Deployment; empty: no. */}}
{{- define "bento-service.isRollout" -}}
{{- if ne .Values.strategy.kind "rolling" }}true{{ end -}}
{{- end -}}

{{/* Endpoints of predictions as a regular expression: without it probes would count as requests. */}}
{{- define "bento-service.endpoints" -}}
{{- join "|" .Values.metrics.endpoints -}}
{{- end -}}
