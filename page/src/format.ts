// Numbers as people read them, and as the API takes them.

const PREFIXES: [number, string][] = [
  [1e12, "T"],
  [1e9, "G"],
  [1e6, "M"],
  [1e3, "k"],
];
const READ = PREFIXES.filter(([, prefix]) => prefix !== "T"); // by the API
const STEPS = 500; // of a slider: a budget has as many digits as tell them apart
const MOST_DIGITS = 15;

/** A number with a prefix, in some significant digits: 3.99M. */
export function amount(value: number, digits = 3, prefixes = PREFIXES): string {
  const [size, prefix] = prefixes.find(([size]) => Math.abs(value) >= size * (1 - 0.5 * 10 ** -digits)) ?? [1, ""];
  return Number((value / size).toPrecision(digits)) + prefix;
}

/** The same with its unit: 3.99 MMAdds would be misread, so the unit stands apart. */
export function withUnit(value: number, unit: string, digits = 3): string {
  return `${amount(value, digits)}\u202f${unit}`;
}

export function percent(fraction: number): string {
  return `${(100 * fraction).toFixed(1)}%`;
}

export function milliseconds(value: number): string {
  return `${value < 10 ? value.toFixed(2) : value.toFixed(0)}\u202fms`;
}

/** A cost's name without underscores; those of a device say so. */
export function costLabel(name: string): string {
  const [cost, device] = name.split("@");
  return cost!.replaceAll("_", " ") + (device ? ` on ${device}` : "");
}

/** A budget as text that the API reads: what a slider says, rounded, within its ends. */
export function budgetText(value: number, low: number, high: number): string {
  if (value <= low) return String(low);
  if (value >= high) return String(high);
  const digits = Math.ceil(Math.log10(value / ((high - low) / STEPS)));
  const text = amount(value, Math.min(Math.max(digits, 2), MOST_DIGITS), READ);
  const rounded = parseFloat(text) * (READ.find(([, prefix]) => text.endsWith(prefix))?.[0] ?? 1);
  return rounded < low ? String(low) : rounded > high ? String(high) : text;
}
