# shellcheck shell=bash
# A PostgreSQL cluster of our own with logical decoding; Debian's own clusters are not touched.

# PostgreSQL refuses to run as root. setpriv replaces itself by the command, so that the
# recorded pid is the server's own.
as_postgres() {
  if ((EUID == 0)); then
    setpriv --reuid=postgres --regid=postgres --init-groups -- "$@"
  else
    "$@"
  fi
}

# The superuser comes in through the socket, whose folder only its owner can enter.
psql_admin() { psql -qAtX -v ON_ERROR_STOP=1 -h "$DATA/postgres" -p "$POSTGRES_PORT" -U postgres -d postgres "$@"; }
psql_crm() { psql -qAtX -v ON_ERROR_STOP=1 -d "$POSTGRES_URL" "$@"; }

postgres_healthy() { [[ $(psql_admin -c 'select 1' 2>/dev/null) == 1 ]]; }

postgres_init() {
  mkdir "$DATA/postgres"
  chmod 700 "$DATA/postgres"
  ((EUID != 0)) || chown postgres:postgres "$DATA/postgres"
  (cd / && as_postgres "$(postgres_bin)/initdb" --pgdata="$DATA/postgres/data" --username=postgres \
    --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 --no-sync) \
    >"$RUN/logs/postgres.log" 2>&1 || fail_with_log postgres "initdb failed"
  # It wants the key for itself alone.
  install -m 600 "$TLS/server.key" "$TLS/server.crt" "$DATA/postgres/data"
  ((EUID != 0)) || chown postgres:postgres "$DATA/postgres/data/server.key" "$DATA/postgres/data/server.crt"
}

postgres_start() {
  is_running postgres && return
  require_free_port postgres "$POSTGRES_PORT"
  [[ -d $DATA/postgres/data ]] || postgres_init
  # After a kill -9 (a test may do that) its children need a moment to notice, and the stale
  # pid file would stop the new server for as long as nobody reaps the old pid.
  if [[ -e $DATA/postgres/data/postmaster.pid ]]; then
    sleep 1
    rm -f "$DATA/postgres/data/postmaster.pid"
  fi
  local setpriv=()
  ((EUID != 0)) || setpriv=(setpriv --reuid=postgres --regid=postgres --init-groups --)
  # Six tests at once, and a worker of each may open sixteen sessions. Tests of snapshots have a slot each; and they count
  # statements, none of which may be forgotten for those of the others. A slot that a failed test leaves may not fill the disk,
  # and with a limit the server says how much is safe.
  start_process postgres "${setpriv[@]}" "$(postgres_bin)/postgres" -D "$DATA/postgres/data" \
    -c port="$POSTGRES_PORT" -c listen_addresses=127.0.0.1 -c unix_socket_directories="$DATA/postgres" \
    -c ssl=on -c wal_level=logical -c max_replication_slots=10 -c max_wal_senders=10 -c fsync=off -c timezone=UTC \
    -c max_slot_wal_keep_size=8GB -c shared_preload_libraries=pg_stat_statements \
    -c max_connections=300 -c pg_stat_statements.max=50000
}

postgres_ready() {
  wait_until postgres postgres_healthy
  # Roles and databases of its own, because tests migrate a database each; and it sees the statements of its roles.
  [[ $(psql_admin -c "select 1 from pg_database where datname = 'crm'") == 1 ]] ||
    psql_admin -c "create role crm login replication createrole createdb password 'crm' in role pg_read_all_stats" -c "create database crm owner crm"
  # As in production: a connector has a login of its own. Only a superuser makes one that may replicate.
  [[ $(psql_admin -c "select 1 from pg_roles where rolname = 'crm_cdc'") == 1 ]] ||
    psql_admin -c "create role crm_cdc login replication password 'crm'"
  # Tests count statements; what is in template1 is in every database made from it.
  psql_admin -d template1 -c "set client_min_messages = warning" -c "create extension if not exists pg_stat_statements"
  postgres_migrate
  psql_crm -c 'set client_min_messages = warning' -c 'grant crm_connector to crm_cdc'
}

# What `migrate` does, for a stack that is up before the worker is built.
postgres_migrate() {
  local folder=$STACK/../schemas/postgres file name
  psql_crm -c 'set client_min_messages = warning' -f "$folder/0000_migrations.sql"
  for file in "$folder"/*.sql; do
    name=$(basename "$file" .sql)
    [[ $name != 0000_migrations && $(psql_crm -c "select 1 from crm_events.migrations where name = '$name'") != 1 ]] || continue
    psql_crm --single-transaction -f "$file" -c "insert into crm_events.migrations (name, checksum)
      values ('$name', '$(sha256sum <"$file" | cut -d' ' -f1)')"
  done
}
