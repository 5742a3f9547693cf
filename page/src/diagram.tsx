// The architecture as blocks in a row, by stage: height says multiply-adds, shade the kernel; what is left out of the largest is empty.

import { useState } from "preact/hooks";
import type { Block, Blueprint } from "./api";
import { amount, percent, withUnit } from "./format";

const SHADES = [3, 5, 7]; // kernels from which on a block is darker
const LEAST = 24; // of a block's height, in percent, so that what stands in it can be read

export interface Row {
  label: string;
  blueprint: Blueprint;
}

export function Diagram({ rows, largest }: { rows: Row[]; largest: Blueprint | undefined }) {
  const [place, setPlace] = useState<{ row: number; name: string } | null>(null);
  if (!rows.length) return null;
  const names = positions([...(largest ? [largest] : []), ...rows.map((row) => row.blueprint)]);
  const most = Math.max(...[...rows.map((row) => row.blueprint), ...(largest ? [largest] : [])]
    .flatMap((each) => each.blocks.map((block) => block.madds)));
  const find = (row: number, name: string) => rows[row]?.blueprint.blocks.find((block) => block.name === name);
  const pointed = place && find(place.row, place.name);
  const current = pointed ? place : { row: rows.length - 1, name: rows.at(-1)!.blueprint.blocks[0]!.name };

  // one stop for the tabulator; arrows go from block to block, and between the two networks
  const move = (event: KeyboardEvent) => {
    const [along, across] = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key] ?? [0, 0];
    if (!along && !across) return;
    event.preventDefault();
    const row = Math.min(Math.max(current.row + across!, 0), rows.length - 1);
    const there = names.filter((name) => find(row, name));
    const at = there.includes(current.name) ? there.indexOf(current.name) : there.findLastIndex((n) => names.indexOf(n) < names.indexOf(current.name));
    const name = there[Math.min(Math.max(at + along!, 0), there.length - 1)]!;
    setPlace({ row, name });
    document.getElementById(blockId(row, name))?.focus();
  };

  return (
    <section class="panel" aria-labelledby="diagram-title">
      <div class="title">
        <h3 id="diagram-title">Architecture</h3>
        <p class="legend note">
          kernel
          {[1, ...SHADES].map((k) => <span key={k} class={`swatch k${k}`}>{k}</span>)}
          <span>height: multiply-adds</span>
          <span class="swatch skipped" /> left out
        </p>
      </div>
      <ol class="stages" aria-label="Stages" onKeyDown={move}>
        {stages(names).map(([stage, own]) => (
          <li key={stage} class="stage">
            <div class="stage-title">
              {stage} <small>{resolution(own, rows)}</small>
            </div>
            {rows.map((row, r) => (
              <ol key={r} class="blocks" aria-label={row.label ? `Network ${row.label}, ${stage}` : stage}>
                {rows.length > 1 && <li class="row-label" aria-hidden="true">{row.label}</li>}
                {own.map((name) => {
                  const block = find(r, name);
                  if (!block) return <li key={name} class="block"><span class="box skipped" title={`${name}: left out`} /></li>;
                  return (
                    <li key={name} class="block">
                      <button
                        id={blockId(r, name)}
                        class={`box k${shade(block.kernel)}${pointed && r === place.row && name === place.name ? " pointed" : ""}`}
                        style={{ height: `${LEAST + (100 - LEAST) * Math.sqrt(block.madds / most)}%` }}
                        tabIndex={r === current.row && name === current.name ? 0 : -1}
                        aria-label={words(block, row.blueprint).join(", ")}
                        onMouseEnter={() => setPlace({ row: r, name })}
                        onFocus={() => setPlace({ row: r, name })}
                      >
                        {block.kernel}
                      </button>
                      <span class="under">{block.alternative || bits(block) || (block.expand ? `×${Number(block.expand.toFixed(1))}` : "\u00a0")}</span>
                      <span class="under quiet">{block.out_channels}</span>
                    </li>
                  );
                })}
              </ol>
            ))}
          </li>
        ))}
      </ol>
      <p class="pointed-at">
        {pointed ? (
          <>
            <b>{rows[place.row]!.label} {pointed.name}</b> {words(pointed, rows[place.row]!.blueprint).slice(1).join(" · ")}
          </>
        ) : (
          <span class="note">In a block its kernel; below it expand ratio and channels. Point at one, or move to one with the arrow keys, for more.</span>
        )}
      </p>
      <details>
        <summary>All blocks as a table</summary>
        {rows.map((row) => <Table key={row.label} row={row} />)}
      </details>
    </section>
  );
}

function Table({ row: { label, blueprint } }: { row: Row }) {
  return (
    <div class="scrolls" tabIndex={0} role="region" aria-label={`Blocks ${label}`}>
      <table class="blocks-table">
        {label && <caption>Network {label}</caption>}
        <thead>
          <tr>
            {["block", "layers", "kernel", "expand", "channels", "resolution", "madds", "params"].map((each) => (
              <th key={each} scope="col">{each}</th>
            ))}
          </tr>
        </thead>
        <tbody>
          {blueprint.blocks.map((block) => (
            <tr key={block.name}>
              <th scope="row">{block.name}{block.reads.length > 0 && <small> ← {block.reads.join(", ")}</small>}</th>
              <td>{block.alternative && `${block.alternative}: `}{block.layers.map((layer) => layer.name).join(" ")}</td>
              <td>{block.kernel}</td>
              <td>{block.expand ? Number(block.expand.toFixed(2)) : ""}</td>
              <td>{block.in_channels} → {block.out_channels}</td>
              <td>{block.resolution} → {block.out_resolution}</td>
              <td>{amount(block.madds)}</td>
              <td>{amount(block.params)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** Names of all positions: those of the first network, with others' own put where these stand. */
function positions([first, ...others]: Blueprint[]): string[] {
  const names = first!.blocks.map((block) => block.name);
  for (const { blocks } of others) {
    blocks.forEach((block, i) => {
      if (!names.includes(block.name)) names.splice(i ? names.indexOf(blocks[i - 1]!.name) + 1 : 0, 0, block.name);
    });
  }
  return names;
}

/** Positions by what their names begin with, up to the last dot. */
function stages(names: string[]): [string, string[]][] {
  const found: [string, string[]][] = [];
  for (const name of names) {
    const stage = name.includes(".") ? name.slice(0, name.lastIndexOf(".")) : name;
    if (found.at(-1)?.[0] === stage) found.at(-1)![1].push(name);
    else found.push([stage, [name]]);
  }
  return found;
}

function resolution(names: string[], rows: Row[]): string {
  const all = rows.map(({ blueprint }) => blueprint.blocks.filter((b) => names.includes(b.name)).at(-1)?.out_resolution);
  return [...new Set(all.filter((each) => each !== undefined))].map((each) => `${each} px`).join(", ");
}

function words(block: Block, { costs, blocks }: Blueprint): string[] {
  const total = costs["madds"] ?? blocks.reduce((sum, each) => sum + each.madds, 0);
  return [
    block.name,
    ...(block.alternative ? [block.alternative] : []),
    `kernel ${block.kernel}×${block.kernel}`,
    ...(block.expand ? [`expand ×${Number(block.expand.toFixed(2))}`] : []),
    ...(bits(block) ? [bits(block)] : []),
    `${block.in_channels} → ${block.out_channels} channels`,
    `${block.resolution} → ${block.out_resolution} px`,
    `${withUnit(block.madds, "MAdds")} (${percent(total ? block.madds / total : 0)})`,
    withUnit(block.params, "params"),
    ...(block.shortcut ? ["shortcut"] : []),
  ];
}

/** Bits of weights and activations, where layers are quantised. */
function bits({ layers }: Block): string {
  const quantised = layers.filter((layer) => layer.weight_bits);
  return [...new Set(quantised.map((layer) => `${layer.weight_bits}W${layer.activation_bits}A`))].join(" ");
}

function shade(kernel: number): number {
  return SHADES.findLast((each) => kernel >= each) ?? 1;
}

function blockId(row: number, name: string): string {
  return `block-${row}-${name}`;
}
