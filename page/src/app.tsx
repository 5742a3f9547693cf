// The page: what is asked of the service for what is chosen, and where it is shown.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import * as api from "./api";
import { BudgetPanel } from "./budgets";
import { ClassPanel } from "./classes";
import { CostTable } from "./costs";
import { CurvePanel, useCurve } from "./curve";
import { Diagram } from "./diagram";
import { type Asked, measureKey, useAsked, useMeasured, useScoped, useStatus, useThrottled, type Wanted } from "./hooks";
import { CodePanel } from "./lines";
import { NetworkHead } from "./network";
import { ImagePanel } from "./images";
import { askAnew, hasToken, lookAgain, Problem } from "./service";
import { TokenForm } from "./token";
import { readView, type Scenario, type View, without, writeView } from "./view";

const AT_MOST_EVERY = 80; // milliseconds: a slider asks no more often
const RANGES_AFTER = 40; // milliseconds: the network comes first
const LOOK_AGAIN = 2000;

export function App() {
  const { down, wantsToken, round } = useStatus();
  const [view, change] = useView();
  const [changed, setChanged] = useState<string | null>(null); // the budget that was changed last
  const [notice, setNotice] = useState("");

  useEffect(() => {
    if (!down) return;
    const timer = setInterval(() => void lookAgain(), LOOK_AGAIN);
    return () => clearInterval(timer);
  }, [down]);

  const families = useAsked(`${round}`, api.listFamilies);
  const lines = families.value?.families ?? [];
  const stranger = families.value && view.family !== null && !lines.some((each) => each.name === view.family);
  const name = stranger ? null : (view.family ?? lines.find((each) => each.available)?.name ?? null);
  const scope = `${round} ${name}`;
  const described = useScoped(name ?? "", name ? `${round}` : null, (signal) => api.describe(name!, signal));
  const family = described.value;

  const scenario = useMemo<Scenario>(
    () => ({ choice: view.choice ?? (family ? firstChoice(family) : null), budgets: view.budgets }),
    [view.choice, view.budgets, family],
  );
  const asked = useThrottled(scenario, AT_MOST_EVERY);
  const ready = family && complete(asked);
  const question = ready ? JSON.stringify([round, asked]) : null;
  const ranges = useScoped(name ?? "", question, (signal) => askRanges(name!, asked, changed, signal), RANGES_AFTER);
  const network = useNetwork(scope, name, ready ? asked : null);
  const pinned = useNetwork(scope, name, family ? view.pinned : null);
  const here = network.value;
  const there = view.pinned && !pinned.error ? pinned.value : undefined;

  const own = useBlueprint(scope, name, network.id);
  const other = useBlueprint(scope, name, there && pinned.id);
  const largest = useBlueprint(scope, name, own?.largest);
  const whole = useBlueprint(scope, name, own?.all_classes);

  const seen = useRef<api.Family | undefined>(undefined);
  useEffect(() => {
    if (!family) return;
    if (seen.current?.name === family.name && seen.current.digest !== family.digest) {
      setNotice(`${family.name} has been loaded anew; this is what it hands out now.`);
    }
    seen.current = family;
  }, [family]);
  useEffect(() => {
    if (family && ranges.value && ranges.value.digest !== family.digest) askAnew();
  }, [ranges.value]);

  const costs = ranges.value?.costs ?? {};
  const over = view.over && Object.hasOwn(costs, view.over) ? view.over : (family?.budget ?? null);
  const curve = useCurve(scope, name, ready ? asked.choice : null, over, costs[over ?? ""], ranges.value?.validation_images ?? 0);
  const wanted: Wanted[] = [];
  if (own && ranges.value?.validation_images) {
    wanted.push({ id: own.network, volatile: true });
    if (there && pinned.id) wanted.push({ id: pinned.id });
    wanted.push({ id: own.largest });
    wanted.push({ id: own.all_classes, imagesOf: own.network, volatile: true });
    wanted.push(...curve.networks.map(({ id }) => ({ id })));
  }
  const measured = useMeasured(scope, name, wanted);
  const accuracy = (each: Wanted) => measured.known.get(measureKey(each));

  const columns = [
    { key: "this", label: there ? "B" : "this network", blueprint: own, accuracy: own && accuracy({ id: own.network }) },
    ...(there ? [{ key: "a", label: "A", blueprint: other, accuracy: accuracy({ id: there.id }) }] : []),
    ...(own && own.all_classes !== own.network
      ? [{
          key: "all",
          label: "all classes",
          blueprint: whole,
          accuracy: accuracy({ id: own.all_classes, imagesOf: own.network }),
        }]
      : []),
    { key: "largest", label: "largest", blueprint: largest, accuracy: own && accuracy({ id: own.largest }) },
  ];

  const chooses = (changes: Partial<View>, budget: string | null = null) => {
    setChanged(budget);
    setNotice("");
    change((before) => ({ ...before, choice: before.choice ?? scenario.choice, family: name, ...changes }));
  };
  const problem = network.error instanceof Problem ? network.error : undefined;
  const problems = sorted(problem, changed, asked);
  const trouble = described.error instanceof Problem ? described.error : families.error;

  return (
    <>
      <header class="top">
        <a class="skip" href="#network" onClick={jump}>To the network</a>
        <h1>snugnet</h1>
        <p>The network that fits: any classes, any budget.</p>
        {(lines.length > 1 || (stranger && lines.length > 0)) && (
          <label class="family">
            Family
            <select
              value={name ?? ""}
              onChange={({ currentTarget: { value: family } }) => {
                setChanged(null);
                setNotice("");
                change(() => ({ family, choice: null, budgets: {}, pinned: null, over: null }));
              }}
            >
              {stranger && <option value="" disabled>choose one</option>}
              {lines.map((each) => (
                <option key={each.name} value={each.name} disabled={!each.available}>
                  {each.name}{each.available ? "" : " (not available)"}
                </option>
              ))}
            </select>
          </label>
        )}
      </header>
      {down && (
        <p class="banner" role="alert">
          The service does not answer. Is <code>snugnet serve</code> running? This page goes on as soon as it is.
        </p>
      )}
      {wantsToken ? (
        <TokenForm wrong={hasToken()} />
      ) : (
        <>
          {trouble instanceof Problem && <p class="banner" role="alert">{trouble.message}</p>}
          {lines.filter((each) => each.reason).map((each) => (
            <p key={each.name} class="banner quiet">{each.name}: {each.reason}</p>
          ))}
          {stranger && (
            <p class="banner" role="alert">
              There is no family “{view.family}” here; there is {lines.map((each) => each.name).join(", ") || "none"}.
            </p>
          )}
          {families.value && !name && !stranger && <p class="banner" role="alert">No family could be loaded.</p>}
          {family && (
            <div class="columns">
              <div class="controls">
                <ClassPanel
                  family={family}
                  choice={scenario.choice}
                  problem={problems.group}
                  onChange={(choice) => chooses({ choice })}
                />
                <BudgetPanel
                  ranges={costs}
                  budgets={view.budgets}
                  first={family.budget}
                  problem={problems.budget}
                  changed={changed}
                  onChange={(budgets, cost) => chooses({ budgets }, cost)}
                />
              </div>
              <main id="network" tabIndex={-1}>
                {notice && <p class="banner quiet" role="status">{notice}</p>}
                {pinned.error instanceof Problem && (
                  <p class="banner" role="alert">
                    Network A: {pinned.error.message}{" "}
                    <button onClick={() => chooses({ pinned: null })}>Stop comparing</button>
                  </p>
                )}
                {problems.other && <p class="banner" role="alert">{problems.other.message}</p>}
                <div class={network.error || !complete(scenario) ? "stale" : ""}>
                  {here && (
                    <>
                      <NetworkHead
                        network={here}
                        blueprint={own}
                        accuracy={own && accuracy({ id: here.id })}
                        images={ranges.value?.validation_images ?? 0}
                        costs={family.costs}
                        pinned={there}
                        limits={view.pinned?.budgets ?? {}}
                        fits={!network.error}
                        onPin={() => chooses({ pinned: asked })}
                        onUnpin={() => chooses({ pinned: null })}
                        onSwap={() => view.pinned && chooses({ ...view.pinned, pinned: asked })}
                      />
                      <Diagram
                        rows={[
                          ...(there && other ? [{ label: "A", blueprint: other }] : []),
                          ...(own ? [{ label: there ? "B" : "", blueprint: own }] : []),
                        ]}
                        largest={largest}
                      />
                      <div class="side-by-side">
                        <CostTable columns={columns} budgets={ranges.value?.costs ?? {}} costs={family.costs} />
                        <CurvePanel
                          curve={curve}
                          known={measured}
                          columns={columns}
                          over={over}
                          costs={costs}
                          images={ranges.value?.validation_images ?? 0}
                          onOver={(cost) => chooses({ over: cost }, changed)}
                        />
                      </div>
                      <ImagePanel
                        family={family.name}
                        scope={scope}
                        networks={
                          !network.id || (there && !pinned.id) ? [] : there
                            ? [{ label: "A", id: there.id }, { label: "B", id: here.id }]
                            : [
                                { label: "this network", id: here.id },
                                ...(own && own.all_classes !== here.id
                                  ? [{ label: "all classes", id: own.all_classes }]
                                  : []),
                              ]
                        }
                      />
                      <CodePanel network={here} scenario={asked} />
                    </>
                  )}
                </div>
              </main>
            </div>
          )}
        </>
      )}
    </>
  );
}

/** The view of the address, which follows it and is followed by it. Changes build on each other, drawn or not. */
function useView(): [View, (next: (before: View) => View) => void] {
  const [view, setView] = useState(() => readView(location.hash));
  const latest = useRef(view);
  const show = (next: View) => setView((latest.current = next));
  useEffect(() => {
    const read = () => show(readView(location.hash));
    addEventListener("hashchange", read);
    return () => removeEventListener("hashchange", read);
  }, []);
  return [
    view,
    (next) => {
      show(next(latest.current));
      history.replaceState(null, "", writeView(latest.current) || location.pathname);
    },
  ];
}

/** The last network of the family, and its id where it was answered in this scope: a family that is loaded anew has others. */
function useNetwork(
  scope: string,
  family: string | null,
  scenario: Scenario | null,
): Asked<api.Network> & { id: string | undefined } {
  const key = scenario && JSON.stringify([scope, scenario]);
  const found = useScoped(family ?? "", key, async (signal) => ({
    scope,
    network: await api.specialize(family!, scenario!.choice!, scenario!.budgets, signal),
  }));
  const network = found.value?.network;
  return { ...found, value: network, id: found.value?.scope === scope ? network?.id : undefined };
}

function useBlueprint(scope: string, family: string | null, id: string | undefined): api.Blueprint | undefined {
  return useScoped(scope, (family && id) || null, (signal) => api.blueprint(family!, id!, signal)).value;
}

/** Ranges; where nothing is within the budgets, those without the budget that was changed last. */
async function askRanges(
  family: string,
  { choice, budgets }: Scenario,
  changed: string | null,
  signal: AbortSignal,
): Promise<api.Ranges> {
  try {
    return await api.ranges(family, choice!, budgets, signal);
  } catch (error) {
    if (!(error instanceof Problem) || error.kind !== "budget") throw error;
    const others = changed !== null && Object.hasOwn(budgets, changed) ? without(budgets, changed) : {};
    return api.ranges(family, choice!, others, signal);
  }
}

function complete({ choice }: Scenario): boolean {
  return choice !== null && ("group" in choice || choice.classes.length > 0);
}

function firstChoice(family: api.Family): api.Choice {
  const group = Object.keys(family.groups)[0];
  return group === undefined ? { classes: family.classes } : { group };
}

/** A problem where its cause stands. */
function sorted(problem: Problem | undefined, changed: string | null, { budgets }: Scenario) {
  const kind = problem?.kind === "budget" ? "budget" : problem?.kind === "group" ? "group" : "other";
  const cost = changed !== null && Object.hasOwn(budgets, changed) ? changed : null;
  return {
    group: kind === "group" ? problem : undefined,
    budget: kind === "budget" && problem ? { cost, text: problem.message } : undefined,
    other: kind === "other" && problem?.status !== 401 ? problem : undefined,
  };
}

/** A link within the page leaves the fragment alone, which holds the view. */
function jump(event: Event): void {
  event.preventDefault();
  document.getElementById("network")?.focus();
}
