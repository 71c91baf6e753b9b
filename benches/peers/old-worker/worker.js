// The worker that was replaced, as such workers are written: KafkaJS, eachBatch, five records at a time, one SET NX and
// one POST a record. Only for the benchmark. Its key is the purchase alone, which is one of the reasons it was replaced.
const { Kafka, logLevel } = require('kafkajs');
const Redis = require('ioredis');
const pLimit = require('p-limit');

const { KAFKA_BROKERS, KAFKA_GROUP, TOPIC, REDIS_URL, INNGEST_URL } = process.env;
const RATE = 0.1;
const WINDOW_SECS = 300;

const kafka = new Kafka({ clientId: 'old-worker', brokers: KAFKA_BROKERS.split(','), logLevel: logLevel.WARN });
const consumer = kafka.consumer({ groupId: KAFKA_GROUP, sessionTimeout: 30000, heartbeatInterval: 3000 });
const redis = new (Redis.default ?? Redis)(REDIS_URL);
const limit = pLimit(5);

async function processRecord(message) {
  if (!message.value) return;
  const change = JSON.parse(message.value.toString());
  const purchase = change.after;
  if (!purchase || purchase.status !== 'completed' || !purchase.earn_currency) return;
  const claimed = await redis.set(`dedup:currency:purchase:${purchase.id}`, '1', 'EX', WINDOW_SECS, 'NX');
  if (claimed !== 'OK') return;
  const event = {
    id: `award-${purchase.id}`,
    name: 'loyalty/award.scheduled',
    ts: change.source.ts_ms,
    data: {
      purchase_id: purchase.id,
      user_id: purchase.user_id,
      merchant_id: purchase.merchant_id,
      points: Math.floor(Number(purchase.final_amount) * RATE),
      due_at: new Date(Date.parse(purchase.completed_at) + 30 * 86400000).toISOString(),
    },
  };
  const answer = await fetch(INNGEST_URL, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(event),
  });
  if (!answer.ok) throw new Error(`Inngest answered ${answer.status}`);
  await answer.json();
}

async function run() {
  await consumer.connect();
  await consumer.subscribe({ topics: [TOPIC], fromBeginning: true });
  await consumer.run({
    eachBatchAutoResolve: false,
    eachBatch: async ({ batch, resolveOffset, heartbeat, commitOffsetsIfNecessary }) => {
      await Promise.all(batch.messages.map((message) => limit(() => processRecord(message))));
      resolveOffset(batch.lastOffset());
      await commitOffsetsIfNecessary();
      await heartbeat();
    },
  });
}

process.on('SIGTERM', async () => {
  await consumer.disconnect();
  redis.disconnect();
  process.exit(0);
});

run().catch((error) => {
  console.error(error);
  process.exit(1);
});
