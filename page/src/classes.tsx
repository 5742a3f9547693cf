// Which classes: a superclass, or any of them in any order.

import { useMemo, useState } from "preact/hooks";
import type { Choice, Family } from "./api";

const SEARCHED = 12; // names: longer lists can be searched

interface Props {
  family: Family;
  choice: Choice | null;
  problem: Error | undefined;
  onChange: (choice: Choice) => void;
}

export function ClassPanel({ family, choice, problem, onChange }: Props) {
  const [search, setSearch] = useState("");
  const group = choice && "group" in choice ? choice.group : null;
  const chosen = useMemo(() => {
    if (!choice) return [];
    if ("classes" in choice) return choice.classes;
    return Object.hasOwn(family.groups, choice.group) ? family.groups[choice.group]! : [];
  }, [family, choice]);
  const word = search.trim().toLowerCase();
  const groups = Object.keys(family.groups).filter((name) => name.toLowerCase().includes(word));
  const classes = family.classes.filter((name) => name.toLowerCase().includes(word));
  const searched = family.classes.length > SEARCHED || Object.keys(family.groups).length > SEARCHED;

  // thousands of rows are looked through again only when they change, not at every move of a slider
  const lists = useMemo(
    () => (
      <>
        {groups.length > 0 && (
          <fieldset>
            <legend>Superclass</legend>
            <div class="names groups">
              {groups.map((name) => (
                <label key={name} class="chip">
                  <input type="radio" name="group" checked={name === group} onChange={() => onChange({ group: name })} />
                  <span>{name}</span>
                  <small>{family.groups[name]!.length}</small>
                </label>
              ))}
            </div>
          </fieldset>
        )}
        <fieldset>
          <legend>{groups.length ? "or classes of your own" : "Classes"}</legend>
          <div class="names classes">
            {classes.map((name) => (
              <label key={name} class="chip">
                <input
                  type="checkbox"
                  checked={chosen.includes(name)}
                  onChange={(event) =>
                    onChange({
                      classes: event.currentTarget.checked ? [...chosen, name] : chosen.filter((each) => each !== name),
                    })}
                />
                <span>{name}</span>
              </label>
            ))}
          </div>
          {!groups.length && !classes.length && <p class="note">No name has “{search}” in it.</p>}
        </fieldset>
      </>
    ),
    [family, choice, search],
  );

  return (
    <section class="panel" aria-labelledby="classes-title">
      <div class="title">
        <h2 id="classes-title">Classes</h2>
        <span class="note">{chosen.length} of {family.classes.length}</span>
      </div>
      {searched && (
        <input
          type="search"
          placeholder="Search names"
          aria-label="Search superclasses and classes"
          value={search}
          onInput={(event) => setSearch(event.currentTarget.value)}
        />
      )}
      {problem && <p class="problem" role="alert">{problem.message}</p>}
      {choice && !chosen.length && !problem && <p class="problem" role="status">Tick at least two classes.</p>}
      {lists}
      <div class="buttons">
        <button
          onClick={() => onChange({ classes: [...chosen, ...classes.filter((name) => !chosen.includes(name))] })}
        >
          {word ? "Tick these" : "Tick all"}
        </button>
        <button onClick={() => onChange({ classes: word ? chosen.filter((name) => !classes.includes(name)) : [] })}>
          {word ? "Untick these" : "Untick all"}
        </button>
      </div>
    </section>
  );
}
