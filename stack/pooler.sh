# shellcheck shell=bash
# PgBouncer before PostgreSQL, in transaction mode and without prepared statements, as poolers of hosted databases are: every
# transaction may meet another session.

pooler_healthy() { [[ $(psql -qAtX -d "$POOLER_URL" -c 'select 1' 2>/dev/null) == 1 ]]; }

pooler_start() {
  is_running pooler && return
  require_free_port pooler "$POOLER_PORT"
  mkdir -p "$DATA/pooler"
  echo '"crm" "crm"' >"$DATA/pooler/users"
  # From 1.21 on it can carry prepared statements from session to session, and later ones do so unasked. Older ones do not know the word.
  local version prepared=
  version=$("$(pgbouncer_bin)" --version | sed -n 's/^PgBouncer //p')
  [[ $(printf '%s\n' 1.21 "$version" | sort -V | head -n 1) != 1.21 ]] || prepared='max_prepared_statements = 0'
  # Few sessions, so that many clients must share them; every database of the server, since tests make their own.
  cat >"$DATA/pooler/pgbouncer.ini" <<INI
[databases]
* = host=127.0.0.1 port=$POSTGRES_PORT
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $POOLER_PORT
unix_socket_dir =
auth_type = scram-sha-256
auth_file = $DATA/pooler/users
pool_mode = transaction
default_pool_size = 4
max_client_conn = 200
$prepared
INI
  # It refuses to run as root.
  local setpriv=()
  if ((EUID == 0)); then
    chown -R postgres:postgres "$DATA/pooler"
    setpriv=(setpriv --reuid=postgres --regid=postgres --init-groups --)
  fi
  start_process pooler "${setpriv[@]}" "$(pgbouncer_bin)" "$DATA/pooler/pgbouncer.ini"
}

pooler_ready() { wait_until pooler pooler_healthy; }
