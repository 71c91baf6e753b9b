// The functions over HTTP: Inngest calls /api/inngest, the platform asks /livez and /readyz.
import { createServer, type Server } from "node:http";
import type { Inngest, InngestFunction } from "inngest";
import { serve } from "inngest/node";
import type { Ledger } from "./ledger.ts";

export const PATH = "/api/inngest";

export interface Serving {
  port: number;
  /** Takes no new call; ends when those that run have been answered. */
  close(): Promise<void>;
}

export async function serveHttp(
  client: Inngest,
  functions: InngestFunction.Any[],
  ledger: Ledger,
  address: { host: string; port: number },
): Promise<Serving> {
  const inngest = serve({ client, functions, servePath: PATH });
  const server = createServer((request, response) => {
    const path = (request.url ?? "").split("?", 1)[0];
    const answer = (status: number, text: string) => {
      response.writeHead(status, { "content-type": "text/plain" }).end(`${text}\n`);
    };
    if (path === PATH) {
      inngest(request, response);
    } else if (path === "/livez") {
      answer(200, "ok");
    } else if (path === "/readyz") {
      ledger.now().then(
        () => answer(200, "ok"),
        () => answer(503, "the database does not answer"),
      );
    } else {
      answer(404, "not found");
    }
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(address.port, address.host, resolve);
  });
  return { port: portOf(server), close: () => closing(server) };
}

function portOf(server: Server): number {
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the server has no port");
  return address.port;
}

function closing(server: Server): Promise<void> {
  return new Promise((resolve, reject) => {
    server.close((error) => (error === undefined ? resolve() : reject(error)));
    server.closeIdleConnections();
  });
}
