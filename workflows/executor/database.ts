// The database's clock, so that it agrees with the executor's. Only the owner of the schema may write it.
import { Pool } from "pg";

export interface DatabaseClock {
  moved(offsetMs: number): Promise<void>;
  close(): Promise<void>;
}

export function databaseClock(url: string): DatabaseClock {
  const pool = new Pool({ connectionString: url, max: 1 });
  // A pool has ended before its sessions have: a database that is dropped right then ends them, and tells an idle one.
  pool.on("error", () => {});
  return {
    async moved(offsetMs) {
      await pool.query(
        `insert into crm_events.settings (name, value) values ('clock_offset', $1)
         on conflict (name) do update set value = excluded.value`,
        [`${offsetMs} milliseconds`],
      );
    },
    close: () => pool.end(),
  };
}
