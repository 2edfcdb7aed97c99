{{/* A pod that serves a release: dict context, release, component, environment (more variables, YAML). */}}
{{- define "bento-service.podTemplate" -}}
{{- $values := .context.Values -}}
metadata:
  labels:
    {{- include "bento-service.labels" . | nindent 4 }}
  annotations:
    kubectl.kubernetes.io/default-container: serving
    driftline.dev/model-version: {{ .release.modelVersion | quote }}
    driftline.dev/bento: {{ .release.bento.tag | quote }}
    driftline.dev/run: {{ .release.runId | quote }}
    {{- include "driftline.scrapeAnnotations" (dict "scrape" $values.metrics.scrape "port" 3000) | nindent 4 }}
spec:
  serviceAccountName: {{ include "driftline.serviceAccountName" .context }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: 60
  securityContext: {{- include "driftline.podSecurityContext" . | nindent 4 }}
  topologySpreadConstraints: {{- include "driftline.topologySpread" (include "bento-service.selectorLabels" .) | nindent 4 }}
  containers:
    - name: serving
      image: {{ include "driftline.image" .release.image }}
      securityContext: {{- include "driftline.containerSecurityContext" . | nindent 8 }}
      ports:
        - {name: http, containerPort: 3000}
      env:
        - {name: HOME, value: /tmp}
        - {name: BENTOML_HOME, value: /tmp/bentoml}
        - {name: DRIFTLINE_HOME, value: /tmp/driftline}
        - {name: DRIFTLINE_BENTO, value: {{ .release.bento.uri | quote }}}
        - {name: DRIFTLINE_BENTO_DIGEST, value: {{ .release.bento.digest | quote }}}
        {{- if or $values.modelSignature.configMap $values.modelSignature.existingSecret }}
        - {name: DRIFTLINE_MODEL_VERIFYING_KEY, value: {{ printf "/etc/driftline/model-signature/%s" $values.modelSignature.key }}}
        {{- end }}
        {{- with .environment }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- /* Named keys only: the Secret of a namespace may hold what serving has no business with. Without its online
               store a server would look features up in an empty one of its own. */}}
        {{- with $values.environmentFrom.configMap }}
        {{- include "driftline.environmentFrom" (dict "from" "configMapKeyRef" "name" . "keys" (list "DRIFTLINE_OBJECT_STORE_URL" "AWS_ENDPOINT_URL" "AWS_REGION")) | indent 8 }}
        {{- end }}
        {{- with $values.environmentFrom.existingSecret }}
        {{- include "driftline.environmentFrom" (dict "from" "secretKeyRef" "name" . "keys" (list "DRIFTLINE_ONLINE_STORE_URL" "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY") "required" (list "DRIFTLINE_ONLINE_STORE_URL")) | indent 8 }}
        {{- end }}
      resources: {{- include "driftline.resources" $values.resources | nindent 8 }}
      {{- include "driftline.probes" (dict "live" "/livez" "ready" "/readyz" "startSeconds" $values.startSeconds) | nindent 6 }}
      lifecycle:
        # Services and routers stop sending before the server stops answering.
        preStop:
          sleep: {seconds: 10}
      volumeMounts:
        - {{- include "driftline.scratchMount" . | nindent 10 }}
        {{- if or $values.modelSignature.configMap $values.modelSignature.existingSecret }}
        - {name: model-signature, mountPath: /etc/driftline/model-signature, readOnly: true}
        {{- end }}
  volumes:
    - {{- include "driftline.scratchVolume" $values.scratch | nindent 6 }}
    {{- with $values.modelSignature }}
    {{- if .configMap }}
    - name: model-signature
      configMap: {name: {{ .configMap }}}
    {{- else if .existingSecret }}
    - name: model-signature
      secret:
        secretName: {{ .existingSecret }}
        # The public key alone, whatever else is in there.
        items: [{key: {{ .key }}, path: {{ .key }}}]
    {{- end }}
    {{- end }}
{{- end -}}
