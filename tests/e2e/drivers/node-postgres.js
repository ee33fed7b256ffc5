// node-postgres: what a client sees, as JSON.
const { Client, Pool } = require('pg');
const place = {
  host: process.env.PGHOST, port: 5432, user: process.env.PGUSER, password: process.env.PGPASSWORD,
  database: process.env.PGDATABASE, ssl: { rejectUnauthorized: false }, application_name: 'driver',
};
const said = {};
async function main() {
  const db = new Client(place);
  const notices = [];
  const heard = [];
  db.on('notice', (notice) => notices.push([notice.severity, notice.code, notice.message]));
  db.on('notification', (note) => heard.push([note.processId === db.processID, note.channel, note.payload]));
  await db.connect();
  const one = async (text, values) => (await db.query(text, values)).rows;
  await db.query('DROP TABLE IF EXISTS driver_node');
  await db.query('CREATE TABLE driver_node (id int PRIMARY KEY, what text, many int[], doc jsonb, at timestamptz, n numeric)');
  said.pid = (await one('SELECT pg_backend_pid() AS pid'))[0].pid === db.processID;
  await db.query('INSERT INTO driver_node VALUES ($1, $2, $3, $4, $5, $6)',
    [1, 'ünï', [1, null, 3], { a: [1] }, new Date(Date.UTC(2026, 0, 2)), '1.50']);
  const row = await db.query('SELECT * FROM driver_node');
  said.row = row.rows;
  said.fields = row.fields.map((f) => [f.name, f.dataTypeID, f.dataTypeSize, f.dataTypeModifier, f.format, f.columnID]);
  said.array = (await db.query({ text: 'SELECT id, what FROM driver_node', rowMode: 'array' })).rows;
  said.binary = (await db.query({ text: 'SELECT id, true AS t FROM driver_node', binary: true })).rows;
  said.prepared = [];
  for (let n = 0; n < 5; n++) {
    said.prepared.push((await db.query({ name: 'plus', text: 'SELECT id + $1::int AS n FROM driver_node', values: [n] })).rows[0].n);
  }
  said.several = (await db.query('SELECT 1 AS a; SELECT 2 AS b')).map((r) => [r.command, r.rowCount, r.rows]);
  said.errors = [];
  for (const [text, values] of [['INSERT INTO driver_node (id) VALUES (1)'], ['SELECT wrong FROM driver_node'], ['SELECT 1 / $1::int', [0]], ['SELECT $1::int', ['x']]]) {
    try { await db.query(text, values); } catch (e) {
      said.errors.push([e.code, e.severity, e.message, e.detail, e.hint, e.position, e.constraint, e.table, e.column]);
    }
  }
  await db.query('BEGIN');
  await db.query('DELETE FROM driver_node');
  try { await db.query('SELECT 1 / 0'); } catch (e) { said.aborted = e.code; }
  try { await db.query('SELECT 1'); } catch (e) { said.inFailed = [e.code, e.message]; }
  await db.query('ROLLBACK');
  said.count = (await one('SELECT count(*) FROM driver_node'))[0].count;
  await db.query('DROP TABLE IF EXISTS never_was_there');
  said.notices = notices;
  await db.query('LISTEN driver_news');
  await db.query("NOTIFY driver_news, 'hello'");
  await db.query('SELECT 1');
  said.heard = heard;
  said.queued = (await Promise.all([...Array(50).keys()].map((n) => db.query('SELECT $1::int AS n', [n])))).reduce((sum, r) => sum + r.rows[0].n, 0);
  // A statement that takes too long is cancelled by another connection.
  const running = db.query('SELECT pg_sleep(60)').catch((e) => [e.code, e.message]);
  const canceller = new Client(place);
  await canceller.connect();
  while ((await canceller.query("SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND query LIKE '%pg_sleep%' AND state = 'active'", [db.processID])).rowCount === 0) { /* until it runs */ }
  await canceller.query('SELECT pg_cancel_backend($1)', [db.processID]);
  said.cancelled = await running;
  await canceller.end();
  await db.query('DISCARD ALL');
  await db.query('DROP TABLE driver_node');
  await db.end();
  const pool = new Pool({ ...place, max: 4 });
  said.pool = (await Promise.all([...Array(40).keys()].map((n) => pool.query('SELECT $1::int AS n', [n])))).reduce((sum, r) => sum + r.rows[0].n, 0);
  await pool.end();
  console.log(JSON.stringify(said));
}
main().catch((e) => { console.error(e); process.exit(1); });
