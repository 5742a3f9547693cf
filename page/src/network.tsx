// The network that is handed out: what it is, and what can be done with it.

import { useEffect, useState } from "preact/hooks";
import * as api from "./api";
import { amount, costLabel, percent } from "./format";
import { Unreachable } from "./service";

const LETTERS_SHOWN = 160; // of the classes' names
const SAID_AFTER = 500; // milliseconds: not at every move of a slider

interface Props {
  network: api.Network;
  blueprint: api.Blueprint | undefined;
  accuracy: number | null | undefined;
  images: number;
  costs: api.Family["costs"];
  pinned: api.Network | undefined;
  /** Budgets of that one. */
  limits: api.Budgets;
  /** Whether it is what is asked for now. */
  fits: boolean;
  onPin: () => void;
  onUnpin: () => void;
  onSwap: () => void;
}

export function NetworkHead({ network, blueprint, accuracy, images, costs, pinned, limits, fits, onPin, onUnpin, onSwap }: Props) {
  const shown = Object.keys(network.costs).slice(0, 3);
  const known = blueprint?.network === network.id ? blueprint.costs : network.costs;
  const outputs = beginning(network.classes);
  const more = network.classes.length - outputs.length;
  return (
    <section class="head" aria-labelledby="network-title">
      <div>
        <h2 id="network-title">
          {pinned && <span class="badge">B</span>}
          {"Network for "}{network.group}
        </h2>
        <p class="note outputs">
          {network.classes.length} outputs:{" "}
          {outputs.map((name) => <span key={name} class="name">{name}</span>)}
          {more > 0 && ` and ${more} more`}
        </p>
      </div>
      <dl class="figures">
        {shown.map((name) => (
          <div key={name}>
            <dt>{costLabel(name)}</dt>
            <dd data-figure={name} title={`${network.costs[name]} ${costs[name]?.unit ?? ""}`}>
              {amount(known[name] ?? network.costs[name]!)}
            </dd>
          </div>
        ))}
        {images > 0 && (
          <div>
            <dt>accuracy, {images} validation images</dt>
            <dd data-figure="accuracy">
              {typeof accuracy === "number" ? percent(accuracy) : <span class="waits">{accuracy === null ? "–" : "measuring"}</span>}
            </dd>
          </div>
        )}
      </dl>
      <div class="buttons">
        <Download network={network} disabled={!fits} />
        {pinned ? (
          <>
            <button onClick={onSwap}>Swap A and B</button>
            <button onClick={onUnpin}>Stop comparing</button>
          </>
        ) : (
          <button disabled={!fits} onClick={onPin}>Keep as A and compare</button>
        )}
      </div>
      {pinned && (
        <p class="note">
          A stays: {[pinned.group, ...Object.entries(limits).map(([name, text]) => `${costLabel(name)} ≤ ${text}`)].join(", ")}.
          What you change is B.
        </p>
      )}
      <Said text={`Network for ${network.group}: ${shown.map((n) => `${amount(network.costs[n]!)} ${costLabel(n)}`).join(", ")}`} />
    </section>
  );
}

/** As many names as fit into a line or two. */
function beginning(names: string[]): string[] {
  let letters = 0;
  return names.filter((name, i) => (letters += name.length + 3) <= LETTERS_SHOWN || i === 0);
}

function Download({ network, disabled }: { network: api.Network; disabled: boolean }) {
  const [state, setState] = useState<{ id: string; text: string; wrong?: boolean } | null>(null);
  const current = state?.id === network.id ? state : null;
  const begin = async () => {
    setState({ id: network.id, text: "Making the file…" });
    try {
      save(await api.download(network.family, network.id), `${network.group}-${network.id.slice(0, 8)}.onnx`);
      setState(null);
    } catch (error) {
      const text = error instanceof Unreachable ? "" : (error as Error).message;
      setState({ id: network.id, text, wrong: true });
    }
  };
  const busy = current !== null && !current.wrong;
  return (
    <>
      <button class="primary" disabled={disabled || busy} onClick={begin}>
        {busy ? current.text : "Download ONNX"}
      </button>
      {current?.wrong && current.text && <span class="problem" role="alert">{current.text}</span>}
    </>
  );
}

function save(file: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = name.replace(/[^\p{L}\p{N}.-]+/gu, "-");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** What is read out, once it has stood for a moment. */
function Said({ text }: { text: string }) {
  const [said, setSaid] = useState("");
  useEffect(() => {
    const timer = setTimeout(() => setSaid(text), SAID_AFTER);
    return () => clearTimeout(timer);
  }, [text]);
  return <p class="unseen" aria-live="polite">{said}</p>;
}
