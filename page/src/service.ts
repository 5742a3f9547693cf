// Asking the service: requests, its problems in its words, and whether it answers at all.

/** A refusal of the service (RFC 9457); the message is its own. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly kind: string,
    detail: string,
  ) {
    super(detail);
  }
}

/** There is no answer. */
export class Unreachable extends Error {}

export interface Status {
  /** Whether the service does not answer. */
  down: boolean;
  /** Whether it wants a token that it has not been given. */
  wantsToken: boolean;
  /** Rises when everything has to be asked again. */
  round: number;
}

const BASE = new URL("v1/", document.baseURI);
const TOKEN = "snugnet.token"; // in sessionStorage: gone with the tab
const TRIES = 4; // of a request that is put off
const ANEW_EVERY = 1000; // milliseconds
export const PATIENT = 60; // of one whose answer takes long to make

let status: Status = { down: false, wantsToken: false, round: 0 };
const listeners = new Set<(status: Status) => void>();

export function currentStatus(): Status {
  return status;
}

export function subscribe(listener: (status: Status) => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function update(changes: Partial<Status>): void {
  const next = { ...status, ...changes };
  if (next.down === status.down && next.wantsToken === status.wantsToken && next.round === status.round) return;
  status = next;
  for (const each of listeners) each(status);
}

let anew: { since: number; waits: boolean } = { since: -Infinity, waits: false };

/** Ask everything again; at most once a second, as a service may have workers of which one has loaded another family. */
export function askAnew(): void {
  if (anew.waits) return;
  const wait = Math.max(anew.since + ANEW_EVERY - performance.now(), 0);
  anew = { since: performance.now() + wait, waits: true };
  setTimeout(() => {
    anew.waits = false;
    update({ round: status.round + 1 });
  }, wait);
}

/** Whether it can be a token: a header holds no other characters. */
export function giveToken(token: string): boolean {
  if (!/^[\x21-\x7e]+$/.test(token)) return false;
  sessionStorage.setItem(TOKEN, token);
  update({ wantsToken: false, round: status.round + 1 });
  return true;
}

export function hasToken(): boolean {
  return sessionStorage.getItem(TOKEN) !== null;
}

/** Whether the service answers again; if so, everything is asked again. */
export async function lookAgain(): Promise<void> {
  try {
    await fetch(new URL("health", BASE));
  } catch {
    return;
  }
  update({ down: false, round: status.round + 1 });
}

/** The address of a path of the API, as others would ask it. */
export function address(...path: string[]): string {
  return new URL(path.map(encodeURIComponent).join("/"), BASE).href;
}

/** The address of the service, as its clients take it. */
export function serviceAddress(): string {
  return new URL(".", document.baseURI).href.replace(/\/$/, "");
}

export interface Options {
  signal?: AbortSignal;
  body?: BodyInit;
  type?: string;
  tries?: number;
}

export async function request(url: string, { signal, body, type, tries = TRIES }: Options = {}): Promise<Response> {
  const { round } = status;
  const headers = new Headers(type ? { "Content-Type": type } : {});
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.set("Authorization", `Bearer ${token}`);
  for (let left = tries; ; left--) {
    let response: Response;
    try {
      response = await fetch(url, { method: body === undefined ? "GET" : "POST", headers, body, signal });
    } catch (error) {
      if (signal?.aborted) throw error;
      update({ down: true });
      throw new Unreachable("the service does not answer");
    }
    update({ down: false });
    if (response.ok) return response;
    if ((response.status === 429 || response.status === 503) && left > 1) {
      await pause(1000 * (Number(response.headers.get("Retry-After")) || 1), signal);
      continue;
    }
    const refusal = await problem(response);
    if (response.status === 401) update({ wantsToken: true });
    if (refusal.kind === "network" && round === status.round) askAnew(); // its family is another one by now
    throw refusal;
  }
}

export async function json<T>(url: string, options?: Options): Promise<T> {
  return (await request(url, options)).json() as Promise<T>;
}

async function problem(response: Response): Promise<Problem> {
  try {
    const document = await response.json();
    return new Problem(response.status, String(document.type).split(":").pop() ?? "", String(document.detail));
  } catch {
    return new Problem(response.status, "", `the service answers ${response.status} ${response.statusText}`);
  }
}

function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
