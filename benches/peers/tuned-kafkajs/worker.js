// The same worker with the same packages, as a good Node engineer would make it fast: eight partitions at once, one pipeline
// of SET NX a batch, events in bodies of at most 400 and 200 KiB, eight requests at once over connections that stay
// open (undici), offsets after the answers. What is refused for good gives its claims back. Only for the benchmark.
//
// What it still cannot promise: if it dies between SET NX and the answer, the next one finds the claims taken and skips events
// that nobody has seen. Its key is the purchase alone, so a refund never becomes an event. Nothing is set aside: one bad
// record stops it, again and again.
const { Kafka, logLevel } = require('kafkajs');
const Redis = require('ioredis');
const pLimit = require('p-limit');
const { Pool } = require('undici');

const { KAFKA_BROKERS, KAFKA_GROUP, TOPIC, REDIS_URL, INNGEST_URL } = process.env;
const RATE = 0.1;
const WINDOW_SECS = 300;
const MAX_EVENTS = 400;
const MAX_BYTES = 200 * 1024;
const AT_ONCE = 8;
const TRIES = 5;

const kafka = new Kafka({ clientId: 'tuned', brokers: KAFKA_BROKERS.split(','), logLevel: logLevel.WARN });
const consumer = kafka.consumer({ groupId: KAFKA_GROUP, sessionTimeout: 30000, heartbeatInterval: 3000 });
const redis = new (Redis.default ?? Redis)(REDIS_URL);
const limit = pLimit(AT_ONCE);
const target = new URL(INNGEST_URL);
const pool = new Pool(target.origin, { connections: AT_ONCE });

function eventOf(message) {
  if (!message.value) return undefined;
  const change = JSON.parse(message.value.toString());
  const purchase = change.after;
  if (!purchase || purchase.status !== 'completed' || !purchase.earn_currency) return undefined;
  const text = JSON.stringify({
    id: `award-${purchase.id}`,
    name: 'loyalty/award.scheduled',
    ts: change.source.ts_ms,
    v: '2026-11-22.1',
    data: {
      purchase_id: purchase.id,
      effect_key: `award:purchase_ledger:${purchase.id}`,
      target_points: String(Math.floor(Number(purchase.final_amount) * RATE)),
      due_at: new Date(Date.parse(purchase.completed_at) + 30 * 86400000).toISOString(),
      program_rev: 3,
      refund_policy: 'only_pending',
      basis: {
        user_id: purchase.user_id,
        merchant_id: purchase.merchant_id,
        final_amount: purchase.final_amount,
        refunded_amount: purchase.refunded_amount,
        status: purchase.status,
        earn_currency: purchase.earn_currency,
        created_at: purchase.created_at,
        completed_at: purchase.completed_at,
      },
      as_of_ms: change.source.ts_ms,
      reason: 'earned',
    },
  });
  return { key: `dedup:currency:purchase:${purchase.id}`, text };
}

// The events that nobody has claimed before. On an error it may hold claims: they go back before anybody tries again.
async function claim(events) {
  const pipeline = redis.pipeline();
  for (const { key } of events) pipeline.set(key, '1', 'EX', WINDOW_SECS, 'NX');
  const answers = await pipeline.exec();
  const claimed = events.filter((_, index) => answers[index][1] === 'OK');
  const failed = answers.find(([error]) => error);
  if (failed) {
    await release(claimed);
    throw failed[0];
  }
  return claimed;
}

async function release(events) {
  if (events.length > 0) await redis.del(...events.map(({ key }) => key));
}

function requestsOf(events) {
  const requests = [];
  let request = [];
  let bytes = 2;
  for (const event of events) {
    const more = Buffer.byteLength(event.text) + 1;
    if (request.length === MAX_EVENTS || (request.length > 0 && bytes + more > MAX_BYTES)) {
      requests.push(request);
      request = [];
      bytes = 2;
    }
    request.push(event);
    bytes += more;
  }
  if (request.length > 0) requests.push(request);
  return requests;
}

async function post(events) {
  const body = `[${events.map(({ text }) => text).join(',')}]`;
  for (let tries = 1; ; tries += 1) {
    try {
      const answer = await pool.request({
        path: target.pathname,
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body,
      });
      const text = await answer.body.text();
      if (answer.statusCode === 200) return;
      throw new Error(`Inngest answered ${answer.statusCode}: ${text.slice(0, 200)}`);
    } catch (error) {
      if (tries === TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100 * 2 ** tries));
    }
  }
}

async function processBatch(messages) {
  const events = messages.map(eventOf).filter((event) => event !== undefined);
  if (events.length === 0) return;
  const requests = requestsOf(await claim(events));
  const ends = await Promise.allSettled(requests.map((request) => limit(() => post(request))));
  const refused = requests.filter((_, index) => ends[index].status === 'rejected');
  if (refused.length > 0) {
    await release(refused.flat());
    throw ends.find(({ status }) => status === 'rejected').reason;
  }
}

async function run() {
  await consumer.connect();
  await consumer.subscribe({ topics: [TOPIC], fromBeginning: true });
  await consumer.run({
    eachBatchAutoResolve: false,
    partitionsConsumedConcurrently: AT_ONCE,
    eachBatch: async ({ batch, resolveOffset, heartbeat }) => {
      await processBatch(batch.messages);
      // KafkaJS commits what is resolved once this returns.
      resolveOffset(batch.lastOffset());
      await heartbeat();
    },
  });
}

process.on('SIGTERM', async () => {
  await consumer.disconnect();
  await pool.close();
  redis.disconnect();
  process.exit(0);
});

run().catch((error) => {
  console.error(error);
  process.exit(1);
});
