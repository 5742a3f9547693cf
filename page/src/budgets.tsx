// How much of each cost: a slider whose ends are what is feasible within the other budgets, and a field for an exact amount.

import { useEffect, useState } from "preact/hooks";
import type { Budgets, Range } from "./api";
import { amount, budgetText, costLabel, withUnit } from "./format";
import { without } from "./view";

interface Props {
  ranges: Record<string, Range>;
  budgets: Budgets;
  /** The cost that stands first. */
  first: string;
  /** What is refused, and at which cost it is shown. */
  problem: { cost: string | null; text: string } | undefined;
  /** The budget that was changed last. */
  changed: string | null;
  onChange: (budgets: Budgets, cost: string) => void;
}

export function BudgetPanel({ ranges, budgets, first, problem, onChange }: Props) {
  const names = Object.keys(ranges).sort((a, b) => Number(b === first) - Number(a === first));
  const unknown = Object.keys(budgets).filter((name) => !Object.hasOwn(ranges, name));
  const set = (name: string, text: string) => {
    onChange(text === "" ? without(budgets, name) : { ...budgets, [name]: text }, name);
  };
  return (
    <section class="panel" aria-labelledby="budgets-title">
      <div class="title">
        <h2 id="budgets-title">Budgets</h2>
        <button disabled={!Object.keys(budgets).length} onClick={() => onChange({}, "")}>Clear</button>
      </div>
      {problem && problem.cost === null && <p class="problem" role="alert">{problem.text}</p>}
      {names.map((name) => (
        <Budget
          key={name}
          name={name}
          range={ranges[name]!}
          text={Object.hasOwn(budgets, name) ? budgets[name]! : ""}
          problem={problem?.cost === name ? problem.text : undefined}
          onChange={(text) => set(name, text)}
        />
      ))}
      {unknown.map((name) => (
        <p key={name} class="problem">
          {costLabel(name)}: {budgets[name]} <button onClick={() => set(name, "")}>Clear</button>
          {problem?.cost === name && <span role="alert"> {problem.text}</span>}
        </p>
      ))}
    </section>
  );
}

interface BudgetProps {
  name: string;
  range: Range;
  text: string;
  problem: string | undefined;
  onChange: (text: string) => void;
}

function Budget({ name, range, text, problem, onChange }: BudgetProps) {
  const { feasible_low: low, feasible_high: high, unit } = range;
  const [draft, setDraft] = useState(text);
  useEffect(() => setDraft(text), [text]);
  const given = read(text, range) ?? range.budget;
  const limit = text === "" ? high : (given ?? high);
  const value = Math.min(Math.max(limit, low), high);
  const id = `budget-${name}`;
  const said = text === "" ? "no limit" : `at most ${given === null ? text : withUnit(given, unit)}`;
  const commit = () => draft.trim() !== text && onChange(draft.trim());
  return (
    <div class={`budget${text ? " set" : ""}`} data-cost={name}>
      <label for={id}>
        {costLabel(name)} <small>{unit}</small>
      </label>
      <input
        class="amount"
        aria-label={`${costLabel(name)}: exact budget, ${unit}`}
        aria-invalid={problem !== undefined}
        aria-describedby={problem && `${id}-problem`}
        placeholder="no limit"
        inputMode="text"
        spellcheck={false}
        value={draft}
        onInput={(event) => setDraft(event.currentTarget.value)}
        onBlur={commit}
        onKeyDown={(event) => {
          if (event.key === "Enter") commit();
          if (event.key === "Escape") setDraft(text);
        }}
      />
      <button class="clear" disabled={text === ""} aria-label={`No limit of ${costLabel(name)}`} onClick={() => onChange("")}>
        ×
      </button>
      <div class="slider">
        <span aria-hidden="true">{amount(low)}</span>
        <input
          id={id}
          type="range"
          min={low}
          max={high}
          step="any"
          value={value}
          disabled={low >= high}
          aria-valuetext={said}
          onInput={(event) => onChange(budgetText(event.currentTarget.valueAsNumber, low, high))}
        />
        <span aria-hidden="true">{amount(high)}</span>
      </div>
      {problem && <p id={`${id}-problem`} class="problem" role="alert">{problem}</p>}
    </div>
  );
}

const AMOUNT = /^\s*([\d.]+(?:e[+-]?\d+)?)\s*([kMG]?)\s*$/;
const SHARE = /^\s*([\d.]+)\s*%\s*$/;

/** Where a budget's text stands before the service has said what it means. */
function read(text: string, { low, high }: Range): number | undefined {
  const share = SHARE.exec(text);
  const plain = AMOUNT.exec(text);
  const value = share
    ? low + (Number(share[1]) / 100) * (high - low)
    : Number(plain?.[1]) * ({ k: 1e3, M: 1e6, G: 1e9 }[plain?.[2] ?? ""] ?? 1);
  return Number.isFinite(value) ? value : undefined;
}
