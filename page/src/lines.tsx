// The same by hand: what to type in a shell, and in Python.

import { useState } from "preact/hooks";
import { type Network, onnxAddress } from "./api";
import { address, hasToken, serviceAddress } from "./service";
import type { Scenario } from "./view";

export function CodePanel({ network, scenario }: { network: Network; scenario: Scenario }) {
  return (
    <section class="panel" aria-labelledby="code-title">
      <h3 id="code-title">From a program</h3>
      <Lines title="curl" text={curlLines(network, scenario)} />
      <Lines title="Python" text={pythonLines(network, scenario)} />
      {hasToken() && <p class="note">Both take the token from SNUGNET_TOKEN.</p>}
    </section>
  );
}

function curlLines(network: Network, { choice, budgets }: Scenario): string {
  const token = hasToken() ? ' -H "Authorization: Bearer $SNUGNET_TOKEN"' : "";
  const body = JSON.stringify({ ...choice, budgets });
  return [
    `curl -s ${address("families", network.family, "networks")}${token} -H 'Content-Type: application/json' \\`,
    `     -d ${inShell(body)}`,
    `curl -sO${token} ${onnxAddress(network.family, network.id)}`,
  ].join("\n");
}

function pythonLines(network: Network, { choice, budgets }: Scenario): string {
  const group = choice && "group" in choice ? text(choice.group) : `[${network.classes.map(text).join(", ")}]`;
  const plain = Object.entries(budgets).filter(([name]) => IDENTIFIER.test(name));
  const others = Object.entries(budgets).filter(([name]) => !IDENTIFIER.test(name));
  const given = [
    text(network.family),
    group,
    ...plain.map(([name, value]) => `${name}=${text(value)}`),
    ...(others.length ? [`**{${others.map(([name, value]) => `${text(name)}: ${text(value)}`).join(", ")}}`] : []),
  ];
  return [
    "from snugnet.client import Client  # the standard library alone",
    "",
    `service = Client(${text(serviceAddress())})`,
    `net = service.specialize(${given.join(", ")})`,
    `service.save(net, "network.onnx")`,
  ].join("\n");
}

const IDENTIFIER = /^[A-Za-z_]\w*$/;
const text = (value: string) => JSON.stringify(value); // which Python reads as the same text
const inShell = (value: string) => `'${value.replaceAll("'", "'\\''")}'`;

function Lines({ title, text }: { title: string; text: string }) {
  const [said, setSaid] = useState("");
  const copy = async (event: Event) => {
    const code = (event.currentTarget as HTMLElement).closest(".lines")!.querySelector("code")!;
    try {
      await navigator.clipboard.writeText(text);
      setSaid("Copied");
    } catch {
      getSelection()?.selectAllChildren(code); // no clipboard without HTTPS: the lines are marked instead
      setSaid("Marked: copy with Ctrl+C");
    }
    setTimeout(() => setSaid(""), 3000);
  };
  return (
    <div class="lines" data-lines={title}>
      <div class="title">
        <h4>{title}</h4>
        <span class="note" role="status">{said}</span>
        <button onClick={copy} aria-label={`Copy the ${title} lines`}>Copy</button>
      </div>
      <pre tabIndex={0} role="region" aria-label={`${title} lines`}><code>{text}</code></pre>
    </div>
  );
}
