{{/* Egress to the cluster's DNS. */}}
{{- define "driftline.dnsEgress" -}}
- to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: kube-system}
      podSelector:
        matchLabels: {k8s-app: kube-dns}
  ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end -}}

{{/* One peer of a policy: dict namespace and podLabels (both optional, one at least; without a namespace its own), or
cidr. */}}
{{- define "driftline.networkPeer" -}}
{{- if .cidr -}}
- ipBlock: {cidr: {{ .cidr }}}
{{- else -}}
-
{{- with .namespace }}
  namespaceSelector:
    matchLabels: {kubernetes.io/metadata.name: {{ . }}}
{{- end }}
{{- with .podLabels }}
  podSelector:
    matchLabels: {{- toYaml . | nindent 6 }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* Rules to or from peers: dict direction (from, to), peers, and port: one for all peers, unless a peer has its own. */}}
{{- define "driftline.networkRules" -}}
{{- range .peers }}
- {{ $.direction }}:
    {{- include "driftline.networkPeer" . | nindent 4 }}
  ports:
    - {protocol: TCP, port: {{ default $.port .port }}}
{{- end }}
{{- end -}}

{{/* Scrape annotations of a pod: dict scrape, port, path. */}}
{{- define "driftline.scrapeAnnotations" -}}
{{- if eq .scrape "annotations" -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ .port | quote }}
prometheus.io/path: {{ default "/metrics" .path }}
{{- end -}}
{{- end -}}
