// Accuracy over a cost: networks of these classes under nine limits, drawn as they are measured, and where this one lies.

import { useEffect, useRef, useState } from "preact/hooks";
import { type Choice, type Network, type Range, specializeMany } from "./api";
import type { Column } from "./costs";
import { amount, costLabel, percent } from "./format";
import { type Measured, measureKey, useAsked } from "./hooks";

const POINTS = 9;
const MARGIN = { top: 14, right: 14, bottom: 40, left: 56 };
const TICKS = 5;

export interface Curve {
  /** Each once, from the cheapest to the dearest. */
  networks: Network[];
  error: Error | undefined;
}

/** The networks of the curve, without accuracies. */
export function useCurve(
  scope: string,
  family: string | null,
  choice: Choice | null,
  over: string | null,
  range: Range | undefined,
  images: number,
): Curve {
  const ends = range && [range.low, range.high];
  const drawn = family && choice && over && ends && ends[0]! < ends[1]! && images > 0;
  const found = useAsked(drawn ? JSON.stringify([scope, choice, over, ends]) : null, (signal) => {
    const [low, high] = ends as [number, number];
    const limits = Array.from({ length: POINTS }, (_, i) =>
      i === 0 ? low : i === POINTS - 1 ? high : low + ((high - low) * i) / (POINTS - 1),
    );
    const asked = limits.filter((limit) => limit > 0).map((limit) => ({ [over!]: limit }));
    return specializeMany(family!, choice!, asked, signal);
  });
  const unique = new Map((drawn && found.value ? found.value : []).map((each) => [each.id, each]));
  return { networks: [...unique.values()], error: found.error };
}

interface Props {
  curve: Curve;
  known: Measured;
  columns: Column[];
  over: string | null;
  costs: Record<string, Range>;
  images: number;
  onOver: (cost: string) => void;
}

interface Mark {
  key: string;
  label: string;
  x: number;
  y: number;
}

export function CurvePanel({ curve, known, columns, over, costs, images, onOver }: Props) {
  const points = curve.networks.flatMap(({ id, costs }) => {
    const y = known.known.get(measureKey({ id }));
    const x = costs[over ?? ""];
    return typeof y === "number" && x !== undefined ? [{ x, y }] : [];
  });
  const waiting = curve.networks.filter(({ id }) => !known.known.has(measureKey({ id }))).length;
  const marks = columns.flatMap<Mark>(({ key, label, blueprint, accuracy }) => {
    const x = blueprint?.costs[over ?? ""];
    return x !== undefined && typeof accuracy === "number" ? [{ key, label, x, y: accuracy }] : [];
  });
  return (
    <section class="panel curve" aria-labelledby="curve-title">
      <div class="title">
        <h3 id="curve-title">Accuracy</h3>
        <label class="note over">
          over{" "}
          <select value={over ?? ""} onChange={(event) => onOver(event.currentTarget.value)}>
            {Object.keys(costs).map((name) => <option key={name} value={name}>{costLabel(name)}</option>)}
          </select>
        </label>
      </div>
      {images === 0 ? (
        <p class="note">The family holds no validation images of these classes, so there is no accuracy to show.</p>
      ) : (
        <>
          <Plot points={points} marks={marks} x={over ?? ""} unit={costs[over ?? ""]?.unit ?? ""} />
          <ul class="legend note">
            <li><svg class="key" viewBox="0 0 24 12" aria-hidden="true"><path class="line" d="M0 6H24" /><circle class="point" cx="12" cy="6" r="3" /></svg>handed out for these classes</li>
            {columns.map(({ key, label }) => (
              <li key={key}><svg class="key narrow" viewBox="0 0 12 12" aria-hidden="true"><Shape kind={key} x={6} y={6} /></svg>{label}</li>
            ))}
          </ul>
          <p class="note" role="status">
            {waiting > 0
              ? `The curve is being made: ${curve.networks.length - waiting} of ${curve.networks.length} networks measured.`
              : `Measured on ${images} validation images: one image is ${(100 / images).toFixed(images < 100 ? 1 : 2)} points.`}
          </p>
          {(curve.error ?? known.error) && <p class="problem" role="alert">{(curve.error ?? known.error)!.message}</p>}
        </>
      )}
    </section>
  );
}

function Plot({ points, marks, x, unit }: { points: { x: number; y: number }[]; marks: Mark[]; x: string; unit: string }) {
  const [frame, { width, height }] = useSize();
  const all = [...points, ...marks];
  const [left, right] = ends(all.map((each) => each.x));
  const [bottom, top] = ends(all.map((each) => each.y), 0.005, 1);
  const inner = { width: Math.max(width - MARGIN.left - MARGIN.right, 1), height: height - MARGIN.top - MARGIN.bottom };
  const at = (value: number) => MARGIN.left + (inner.width * (value - left)) / (right - left);
  const up = (value: number) => MARGIN.top + inner.height * (1 - (value - bottom) / (top - bottom));
  const rising = [...points].sort((a, b) => a.x - b.x);
  const line = rising.map((point, i) => `${i ? "L" : "M"}${at(point.x)} ${up(point.y)}`).join("");
  const described = marks.map((mark) => `${mark.label}: ${percent(mark.y)} at ${amount(mark.x)}`).join("; ");
  return (
    <div class="plot" ref={frame}>
      <svg width={width} height={height} role="img" aria-label={`Accuracy over ${costLabel(x)}. ${described}`}>
        {all.length > 0 && (
          <>
            {ticks(bottom, top).map((value) => (
              <g key={value} class="tick">
                <path d={`M${MARGIN.left} ${up(value)}h${inner.width}`} />
                <text x={MARGIN.left - 8} y={up(value)} dy="0.35em" text-anchor="end">{Number((100 * value).toFixed(2))}%</text>
              </g>
            ))}
            {ticks(left, right, width < 420 ? 3 : TICKS).map((value) => (
              <text key={value} class="tick" x={at(value)} y={height - MARGIN.bottom + 18} text-anchor="middle">{amount(value)}</text>
            ))}
            <text class="axis" x={MARGIN.left + inner.width / 2} y={height - 4} text-anchor="middle">{costLabel(x)}, {unit}</text>
            <path class="line" d={line} />
            {rising.map((point) => <circle key={point.x} class="point" cx={at(point.x)} cy={up(point.y)} r="3" />)}
            {[...marks].reverse().map(({ key, label, x, y }) => (
              <g key={key} class="mark" data-mark={key}>
                <title>{label}: {percent(y)}, {amount(x, 4)}</title>
                <Shape kind={key} x={at(x)} y={up(y)} />
              </g>
            ))}
          </>
        )}
      </svg>
    </div>
  );
}

/** This: a disc; A: a ring; all classes: a square; the largest: a triangle. */
function Shape({ kind, x, y }: { kind: string; x: number; y: number }) {
  if (kind === "all") return <rect class="shape all" x={x - 4.5} y={y - 4.5} width="9" height="9" />;
  if (kind === "largest") return <path class="shape largest" d={`M${x} ${y - 5.5}l5.5 10h-11z`} />;
  return <circle class={`shape ${kind}`} cx={x} cy={y} r={kind === "this" ? 6 : 5} />;
}

/** The size of an element in pixels, as it changes. */
function useSize(): [(element: HTMLElement | null) => void, { width: number; height: number }] {
  const [size, setSize] = useState({ width: 320, height: 300 });
  const observer = useRef<ResizeObserver | null>(null);
  useEffect(() => () => observer.current?.disconnect(), []);
  const frame = useRef((element: HTMLElement | null) => {
    observer.current?.disconnect();
    if (!element) return;
    observer.current = new ResizeObserver(([entry]) => {
      const { width, height } = entry!.contentRect;
      setSize({ width: Math.floor(width), height: Math.floor(height) });
    });
    observer.current.observe(element);
  });
  return [frame.current, size];
}

/** Ends of an axis: those of the values with some room, and a width that is not none. */
function ends(values: number[], least = 0, most = Infinity): [number, number] {
  if (!values.length) return [0, 1];
  const low = Math.min(...values);
  const high = Math.max(...values);
  const room = Math.max(0.06 * (high - low), least, high === low ? 0.05 * Math.abs(high) || 1 : 0);
  return [Math.max(low - room, 0), Math.min(high + room, most + room / 2)];
}

/** Round numbers between two. */
function ticks(low: number, high: number, wanted = TICKS): number[] {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 2.5, 5, 10].find((each) => power * each >= rough) ?? 10);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.max(0, Math.floor(high / step + 1e-9) - first + 1) }, (_, i) => (first + i) * step);
}
