{{/* Labels that tell one part's pods: dict context, component (server, test). */}}
{{- define "feature-store.selectorLabels" -}}
{{ include "driftline.selectorLabels" .context }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "feature-store.labels" -}}
{{ include "driftline.labels" .context }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}
