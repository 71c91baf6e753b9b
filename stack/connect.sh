# shellcheck shell=bash
# Kafka Connect (distributed, one worker) with the Debezium Postgres connector.

CONNECTOR=crm-cdc-source
CONNECT_URL=http://127.0.0.1:$CONNECT_PORT

connect_start() {
  is_running connect && return
  require_free_port connect "$CONNECT_PORT"
  mkdir -p "$DATA/connect"
  cat >"$DATA/connect/worker.properties" <<PROPERTIES
bootstrap.servers=127.0.0.1:$KAFKA_PORT
group.id=crm-connect
listeners=$CONNECT_URL
plugin.path=$JARS/plugins
plugin.discovery=service_load
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
config.storage.topic=crm-connect-configs
config.storage.replication.factor=1
offset.storage.topic=crm-connect-offsets
offset.storage.partitions=1
offset.storage.replication.factor=1
offset.flush.interval.ms=1000
status.storage.topic=crm-connect-status
status.storage.partitions=1
status.storage.replication.factor=1
scheduled.rebalance.max.delay.ms=0
PROPERTIES
  java_command info org.apache.kafka.connect.cli.ConnectDistributed "$DATA/connect/worker.properties"
  start_process connect "${JAVA[@]}"
}

# Fills the ${NAME} placeholders of the connector template for this stack.
render_connector() {
  local config name value
  config=$(<"$STACK/../connectors/kafka-connect/$CONNECTOR.json")
  while IFS='=' read -r name value; do
    config=${config//"\${$name}"/$value}
  done <<VALUES
DATABASE_HOSTNAME=127.0.0.1
DATABASE_PORT=$POSTGRES_PORT
DATABASE_NAME=crm
DATABASE_USER=crm_cdc
DATABASE_PASSWORD=crm
VALUES
  [[ $config != *"\${"* ]] || die "connectors/kafka-connect/$CONNECTOR.json has a placeholder that stack/connect.sh does not fill"
  printf '%s\n' "$config"
}

connect_answers() { curl -sf --max-time 2 -o /dev/null "$CONNECT_URL/connectors"; }

connector_status() { curl -sf --max-time 2 "$CONNECT_URL/connectors/$CONNECTOR/status"; }

# A running connector with a failed task is the usual broken picture, so both must run.
connector_running() {
  local status
  status=$(connector_status) || return 1
  [[ $status != *'"state":"FAILED"'* ]] || fail_with_log connect "connector $CONNECTOR failed: $status"
  [[ $status == *'"connector":{"state":"RUNNING"'* && $status == *'"tasks":[{"id":0,"state":"RUNNING"'* ]]
}

apply_connector() {
  curl -sf --max-time 20 -o /dev/null -X PUT -H 'Content-Type: application/json' \
    --data-binary "@$DATA/connect/$CONNECTOR.wanted.json" "$CONNECT_URL/connectors/$CONNECTOR/config"
}

connect_ready() {
  wait_until connect connect_answers
  local applied=$DATA/connect/$CONNECTOR.json wanted=$DATA/connect/$CONNECTOR.wanted.json
  render_connector >"$wanted"
  if ! cmp -s "$wanted" "$applied"; then
    wait_until connect apply_connector
    mv "$wanted" "$applied"
  elif [[ $(connector_status) == *'"state":"FAILED"'* ]]; then # it outlived its database, say
    curl -sf --max-time 20 -o /dev/null -X POST \
      "$CONNECT_URL/connectors/$CONNECTOR/restart?includeTasks=true&onlyFailed=true"
  fi
  wait_until connect connector_running
}
