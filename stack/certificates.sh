# shellcheck shell=bash
# An authority of our own, made anew with the data, and a certificate for this machine that it signed: for Kafka and PostgreSQL.

TLS=$RUN/tls

certificates() {
  [[ ! -e $DATA/certificates-made ]] || return 0
  make_certificates >"$RUN/logs/openssl.log" 2>&1 || fail_with_log openssl "making the certificates failed"
  touch "$DATA/certificates-made"
}

# A week is longer than any stack lives.
make_certificates() {
  rm -rf "$TLS"
  mkdir -m 700 "$TLS"
  local new=(openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
  "${new[@]}" -x509 -days 7 -subj '/CN=crm stack CA' -keyout "$TLS/ca.key" -out "$TLS/ca.pem" &&
    "${new[@]}" -subj '/CN=localhost' -keyout "$TLS/server.key" -out "$TLS/server.csr" &&
    openssl x509 -req -days 7 -in "$TLS/server.csr" -CA "$TLS/ca.pem" -CAkey "$TLS/ca.key" -CAcreateserial \
      -extfile <(echo 'subjectAltName=DNS:localhost,IP:127.0.0.1') -out "$TLS/server.crt" &&
    cat "$TLS/server.key" "$TLS/server.crt" >"$TLS/server.pem"
}
