{{/* Labels that tell one part's pods: dict context, component (controller, test). */}}
{{- define "drift-monitor.selectorLabels" -}}
{{ include "driftline.selectorLabels" .context }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "drift-monitor.labels" -}}
{{ include "driftline.labels" .context }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}
