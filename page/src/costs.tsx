// All costs of a network beside those that it is compared with.

import type { Blueprint, Family, Range } from "./api";
import { amount, costLabel, percent } from "./format";

export interface Column {
  key: string;
  label: string;
  blueprint: Blueprint | undefined;
  /** Undefined while it is measured, null where there is none. */
  accuracy: number | null | undefined;
}

interface Props {
  columns: Column[];
  budgets: Record<string, Range>;
  costs: Family["costs"];
}

export function CostTable({ columns, budgets, costs }: Props) {
  const first = columns[0]!.blueprint;
  const names = Object.keys(first?.costs ?? {}).filter((name) => name in budgets);
  return (
    <section class="panel" aria-labelledby="costs-title">
      <h3 id="costs-title">Costs</h3>
      <table class="costs">
        <thead>
          <tr>
            <td />
            {columns.map(({ key, label }) => <th key={key} scope="col" class={key}>{label}</th>)}
          </tr>
        </thead>
        <tbody>
          {names.map((name) => (
            <tr key={name} data-cost={name}>
              <th scope="row">
                {costLabel(name)} <small>{costs[name]?.unit}</small>
              </th>
              {columns.map(({ key, blueprint }) => {
                const value = blueprint?.costs[name];
                const own = first!.costs[name]!;
                const limit = key === "this" ? budgets[name]!.budget : null;
                return (
                  <td key={key} class={key} data-value={value} title={value === undefined ? "" : String(value)}>
                    {value === undefined ? "" : amount(value, 4)}
                    <small>
                      {limit !== null && limit > 0 ? `${percent(own / limit)} of ${amount(limit)}` : ""}
                      {key !== "this" && value !== undefined && own > 0 ? ratio(value / own) : ""}
                    </small>
                  </td>
                );
              })}
            </tr>
          ))}
          <tr data-cost="accuracy">
            <th scope="row">accuracy <small>validation</small></th>
            {columns.map(({ key, accuracy }) => (
              <td key={key} class={key}>
                {typeof accuracy === "number" ? percent(accuracy) : <span class="waits">{accuracy === null ? "–" : "…"}</span>}
              </td>
            ))}
          </tr>
        </tbody>
      </table>
      <p class="note">
        Largest: the largest network of these classes.
        {columns.some(({ key }) => key === "all") &&
          " All classes: this architecture with every class of the family in its head, measured on images of these classes."}
      </p>
    </section>
  );
}

/** How much more or less; from twice on, how many times as much. */
function ratio(value: number): string {
  if (value === 1) return "same";
  if (value >= 2) return `${Number(value.toPrecision(3))}×`;
  return `${value > 1 ? "+" : "−"}${percent(Math.abs(value - 1))}`;
}
