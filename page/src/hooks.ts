// Asking while things change: what is stale is given up, what was answered stays until the next answer is there.

import { useEffect, useRef, useState } from "preact/hooks";
import { measure } from "./api";
import { currentStatus, Problem, type Status, subscribe } from "./service";

export interface Asked<T> {
  /** The last answer. */
  value: T | undefined;
  /** Why there is none to what is asked now. */
  error: Error | undefined;
  /** Whether an answer is on its way. */
  pending: boolean;
}

export function useStatus(): Status {
  const [status, setStatus] = useState(currentStatus());
  useEffect(() => subscribe(setStatus), []);
  return status;
}

/** The answer to a question that is told from others by its key; null asks nothing. */
export function useAsked<T>(key: string | null, ask: (signal: AbortSignal) => Promise<T>, delay = 0): Asked<T> {
  const [state, setState] = useState<{ key: string | null; value?: T; error?: Error }>({ key: null });
  useEffect(() => {
    if (key === null) return;
    return later(delay, async (signal) => {
      try {
        const value = await ask(signal);
        if (!signal.aborted) setState({ key, value });
      } catch (error) {
        if (signal.aborted) return;
        setState((before) => ({ key, value: before.value, error: error as Error }));
      }
    });
  }, [key]);
  const current = state.key === key;
  return { value: state.value, error: current ? state.error : undefined, pending: key !== null && !current };
}

/** The same within a scope: what was answered in another one is no answer. */
export function useScoped<T>(
  scope: string,
  key: string | null,
  ask: (signal: AbortSignal) => Promise<T>,
  delay = 0,
): Asked<T> {
  const scoped = key === null ? null : JSON.stringify([scope, key]);
  const found = useAsked(scoped, async (signal) => ({ scope, value: await ask(signal) }), delay);
  return { ...found, value: found.value?.scope === scope ? found.value.value : undefined };
}

/** A value that changes at most once in so many milliseconds: the first change at once, the last one surely. */
export function useThrottled<T>(value: T, milliseconds: number): T {
  const [shown, setShown] = useState(value);
  const last = useRef(0);
  useEffect(() => {
    const wait = last.current + milliseconds - performance.now();
    const timer = setTimeout(() => {
      last.current = performance.now();
      setShown(() => value);
    }, Math.max(wait, 0));
    return () => clearTimeout(timer);
  }, [value]);
  return shown;
}

export interface Wanted {
  id: string;
  /** The network on whose classes' images it is measured; its own without it. */
  imagesOf?: string;
  /** Whether it may be another one soon, so that measuring waits for a moment. */
  volatile?: boolean;
}

export function measureKey({ id, imagesOf }: Wanted): string {
  return `${id} ${imagesOf ?? ""}`;
}

export interface Measured {
  /** By key; null where it cannot be measured. */
  known: ReadonlyMap<string, number | null>;
  error: Error | undefined;
}

const SETTLED = 400; // milliseconds

/** Accuracies, measured one after the other in the order in which they are wanted. */
export function useMeasured(scope: string, family: string | null, wanted: Wanted[]): Measured {
  const [state, setState] = useState<Measured & { scope: string }>({ scope, known: new Map(), error: undefined });
  const known = state.scope === scope ? state.known : new Map<string, number | null>();
  const missing = wanted.filter((each) => !known.has(measureKey(each)));
  const first = family === null ? undefined : missing[0];
  useEffect(() => {
    if (!first || family === null) return;
    return later(first.volatile ? SETTLED : 0, async (signal) => {
      const put = (accuracy: number | null, error?: Error) =>
        setState({ scope, known: new Map(known).set(measureKey(first), accuracy), error });
      try {
        put(await measure(family, first.id, first.imagesOf ?? null, signal));
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Problem) put(null, error);
      }
    });
  }, [scope, first && measureKey(first)]);
  return { known, error: state.scope === scope ? state.error : undefined };
}

/** Work that begins after a while and is given up when it is no longer wanted. */
function later(delay: number, work: (signal: AbortSignal) => Promise<void>): () => void {
  const stop = new AbortController();
  const timer = setTimeout(() => void work(stop.signal), delay);
  return () => {
    clearTimeout(timer);
    stop.abort();
  };
}
