// What is on the screen, and how it stands in the address: a link shows the same.

import type { Budgets, Choice } from "./api";

export interface Scenario {
  /** Null until something is chosen: the family's first superclass then. */
  choice: Choice | null;
  budgets: Budgets;
}

export interface View extends Scenario {
  family: string | null;
  /** The scenario of network A, to compare with. */
  pinned: Scenario | null;
  /** The cost that accuracy is drawn over. */
  over: string | null;
}

const BUDGET = "budget.";
const PINNED = "a.";

export function readView(fragment: string): View {
  const query = new URLSearchParams(fragment.replace(/^#/, ""));
  const pinned = readScenario(query, PINNED);
  return {
    ...readScenario(query, ""),
    family: query.get("family"),
    pinned: pinned.choice ? pinned : null,
    over: query.get("over"),
  };
}

export function writeView(view: View): string {
  const query = new URLSearchParams();
  if (view.family !== null) query.set("family", view.family);
  writeScenario(query, "", view);
  if (view.pinned) writeScenario(query, PINNED, view.pinned);
  if (view.over !== null) query.set("over", view.over);
  return query.size ? `#${query}` : "";
}

function readScenario(query: URLSearchParams, prefix: string): Scenario {
  const group = query.get(`${prefix}group`);
  const classes = query.getAll(`${prefix}class`).filter((name) => name !== ""); // one without a name says: none
  const start = prefix + BUDGET;
  // names are anybody's, such as __proto__: entries become the object's own
  const budgets = Object.fromEntries(
    [...query].filter(([key]) => key.startsWith(start)).map(([key, value]) => [key.slice(start.length), value]),
  );
  return { choice: group !== null ? { group } : query.has(`${prefix}class`) ? { classes } : null, budgets };
}

/** The budgets but one. */
export function without(budgets: Budgets, name: string): Budgets {
  return Object.fromEntries(Object.entries(budgets).filter(([each]) => each !== name));
}

function writeScenario(query: URLSearchParams, prefix: string, { choice, budgets }: Scenario): void {
  if (choice && "group" in choice) query.set(`${prefix}group`, choice.group);
  if (choice && "classes" in choice) {
    for (const name of choice.classes.length ? choice.classes : [""]) query.append(`${prefix}class`, name);
  }
  for (const [name, value] of Object.entries(budgets)) query.set(prefix + BUDGET + name, value);
}
