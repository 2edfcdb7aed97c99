{{/* One rule file with the address of each alert's runbook; alerts that are excluded are left out. */}}
{{- define "observability.rules" -}}
{{- $context := .context -}}
{{- $groups := list -}}
{{- range $group := (fromYaml .text).groups -}}
  {{- $rules := list -}}
  {{- range $rule := $group.rules -}}
    {{- if not $rule.alert -}}
      {{- $rules = append $rules $rule -}}
    {{- else if not (has $rule.alert $context.Values.rules.exclude) -}}
      {{- $runbook := printf "%s/%s.md" $context.Values.runbookBaseUrl $rule.alert -}}
      {{- $annotations := merge (dict "runbook_url" $runbook) $rule.annotations -}}
      {{- $rules = append $rules (merge (dict "annotations" $annotations) $rule) -}}
    {{- end -}}
  {{- end -}}
  {{- if $rules -}}
    {{- $groups = append $groups (dict "name" $group.name "rules" $rules) -}}
  {{- end -}}
{{- end -}}
{{- toYaml (dict "groups" $groups) -}}
{{- end -}}
