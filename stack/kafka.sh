# shellcheck shell=bash
# One Kafka node that is broker and controller (KRaft), and the topics the worker expects. It listens twice: open to
# everybody and everything, and with TLS, passwords and grants, as Confluent Cloud does.

SOURCE_TOPICS=(crm.public.purchase_ledger crm.public.wallet_ledger crm.public.form_submissions
  crm.public.mission_claims crm.public.referral_ledger crm.public.codes)
DEAD_LETTER_TOPICS=(crm.dlq.decode crm.dlq.currency
  crm.dlq.tier crm.dlq.mission crm.dlq.reward crm.dlq.marketplace)

# Who may come in through SASL_SSL. None of them may do anything: a test grants what its user has, and their names say
# what that is. One password for all; it lives and dies with the data.
SASL_USERS=(sound no-describe no-read no-group no-join no-dead-letter revoked checked)

java_command() { # log level, class, arguments...
  local level=$1
  shift
  JAVA=(java "${JAVA_FLAGS[@]}" "-Djava.io.tmpdir=$DATA/tmp" "-Dlog4j2.configurationFile=$STACK/log4j2.properties"
    "-Dstack.log.level=$level" -cp "$JARS/lib/*" "$@")
}

# A real request (ApiVersions v0, correlation id 1) without the second a Java tool would take.
kafka_healthy() {
  # shellcheck disable=SC2016
  [[ $(timeout 2 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1"
    printf "\0\0\0\12\0\22\0\0\0\0\0\1\377\377" >&3
    head -c 8 <&3 | tail -c 4 | od -An -tx1' - "$KAFKA_PORT" 2>/dev/null) == ' 00 00 00 01' ]]
}

# Topics are not created by mere use, as on Confluent Cloud: a typo must not become a topic.
kafka_init() {
  mkdir "$DATA/kafka"
  local password user users=
  password=$(openssl rand -hex 16)
  for user in "${SASL_USERS[@]}"; do users+=" user_$user=\"$password\""; done
  (umask 077 && echo "$password" >"$TLS/password")
  cat >"$DATA/kafka/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$CONTROLLER_PORT
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$KAFKA_PORT,SASL_SSL://127.0.0.1:$KAFKA_SASL_PORT,CONTROLLER://127.0.0.1:$CONTROLLER_PORT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
listener.name.sasl_ssl.ssl.keystore.type=PEM
listener.name.sasl_ssl.ssl.keystore.location=$TLS/server.pem
listener.name.sasl_ssl.sasl.enabled.mechanisms=PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required$users;
# Whoever comes without a name, through PLAINTEXT, may do everything; a user may do what was granted.
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=false
log.dirs=$DATA/kafka/log
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
PROPERTIES
  java_command warn kafka.tools.StorageTool format --standalone \
    --cluster-id crmStackAAAAAAAAAAAAAA --config "$DATA/kafka/server.properties"
  "${JAVA[@]}" >"$RUN/logs/kafka.log" 2>&1 || fail_with_log kafka "formatting the Kafka storage failed"
}

kafka_start() {
  is_running kafka && return
  require_free_port kafka "$KAFKA_PORT"
  require_free_port kafka_sasl "$KAFKA_SASL_PORT"
  require_free_port controller "$CONTROLLER_PORT"
  [[ -d $DATA/kafka ]] || kafka_init
  java_command info kafka.Kafka "$DATA/kafka/server.properties"
  start_process kafka "${JAVA[@]}"
}

kafka_ready() { wait_until kafka kafka_healthy; }

create_topics() { # partitions, setting, topics...
  local partitions=$1 setting=$2 topic
  shift 2
  for topic in "$@"; do
    java_command warn org.apache.kafka.tools.TopicCommand --bootstrap-server "127.0.0.1:$KAFKA_PORT" \
      --create --if-not-exists --topic "$topic" --partitions "$partitions" --replication-factor 1 \
      --config "$setting"
    "${JAVA[@]}"
  done
}

kafka_topics() {
  [[ ! -e $DATA/topics-created ]] || return 0
  {
    create_topics 6 cleanup.policy=delete "${SOURCE_TOPICS[@]}"
    # A letter is a record of up to 1 MiB, and its reason.
    create_topics 1 max.message.bytes=1114124 "${DEAD_LETTER_TOPICS[@]}"
  } >"$RUN/logs/topics.log" 2>&1 || fail_with_log topics "creating the topics failed"
  touch "$DATA/topics-created"
}
