// The paths that the page asks, and the form of their answers (src/snugnet/serve/schemas.py).

import { address, json, PATIENT, request } from "./service";

export interface FamilyLine {
  name: string;
  available: boolean;
  reason: string | null;
}

export interface Family {
  name: string;
  digest: string;
  space: { name: string };
  resolution: number;
  budget: string;
  classes: string[];
  groups: Record<string, string[]>;
  costs: Record<string, { unit: string; low: number; high: number }>;
}

export interface Range {
  unit: string;
  low: number;
  high: number;
  feasible_low: number;
  feasible_high: number;
  budget: number | null;
}

export interface Ranges {
  digest: string;
  classes: string[];
  costs: Record<string, Range>;
  validation_images: number;
}

export interface Network {
  id: string;
  family: string;
  group: string;
  classes: string[];
  costs: Record<string, number>;
  validation_accuracy: number | null;
}

export interface Layer {
  name: string;
  op: string;
  in_channels: number;
  out_channels: number;
  resolution: number;
  kernel: number;
  stride: number;
  groups: number;
  weight_bits: number;
  activation_bits: number;
  madds: number;
}

export interface Block {
  name: string;
  alternative: string;
  kernel: number;
  expand: number;
  in_channels: number;
  out_channels: number;
  resolution: number;
  out_resolution: number;
  shortcut: string | null;
  reads: string[];
  madds: number;
  params: number;
  layers: Layer[];
}

export interface Blueprint {
  network: string;
  in_channels: number;
  resolution: number;
  costs: Record<string, number>;
  blocks: Block[];
  largest: string;
  all_classes: string;
}

export interface Predictions {
  classes: string[];
  predictions: { class: string; probabilities: number[] }[];
  milliseconds: number;
}

/** Which classes: those of a superclass, or any, in the order of the outputs. */
export type Choice = { group: string } | { classes: string[] };
export type Budgets = Record<string, string>;

export function listFamilies(signal: AbortSignal): Promise<{ families: FamilyLine[] }> {
  return json(address("families"), { signal });
}

export function describe(family: string, signal: AbortSignal): Promise<Family> {
  return json(address("families", family), { signal });
}

export function ranges(family: string, choice: Choice, budgets: Budgets, signal: AbortSignal): Promise<Ranges> {
  const query = new URLSearchParams("group" in choice ? { group: choice.group } : {});
  if ("classes" in choice) for (const name of choice.classes) query.append("classes", name);
  for (const [name, value] of Object.entries(budgets)) query.append("budget", `${name}=${value}`);
  return json(`${address("families", family, "costs")}?${query}`, { signal });
}

export function specialize(family: string, choice: Choice, budgets: Budgets, signal: AbortSignal): Promise<Network> {
  const body = JSON.stringify({ ...choice, budgets });
  return json(address("families", family, "networks"), { signal, body, type: "application/json" });
}

export async function specializeMany(
  family: string,
  choice: Choice,
  many: Record<string, number>[],
  signal: AbortSignal,
): Promise<Network[]> {
  const body = JSON.stringify({ scenarios: many.map((budgets) => ({ ...choice, budgets })) });
  const url = address("families", family, "networks");
  return (await json<{ networks: Network[] }>(url, { signal, body, type: "application/json" })).networks;
}

export function blueprint(family: string, id: string, signal: AbortSignal): Promise<Blueprint> {
  return json(address("families", family, "networks", id, "blueprint"), { signal });
}

/** Accuracy on validation images of the network's classes, or of another's; seconds the first time. */
export async function measure(
  family: string,
  id: string,
  imagesOf: string | null,
  signal: AbortSignal,
): Promise<number | null> {
  const query = imagesOf ? `?images_of=${imagesOf}` : "";
  const url = address("families", family, "networks", id) + query;
  return (await json<Network>(url, { signal, tries: PATIENT })).validation_accuracy;
}

export function onnxAddress(family: string, id: string): string {
  return address("families", family, "networks", `${id}.onnx`);
}

export async function download(family: string, id: string): Promise<Blob> {
  return (await request(onnxAddress(family, id), { tries: PATIENT })).blob();
}

export function predict(family: string, id: string, image: Blob, signal: AbortSignal): Promise<Predictions> {
  const type = image.type.startsWith("image/") ? image.type : "image/*";
  return json(address("families", family, "networks", id, "predict"), { signal, body: image, type, tries: PATIENT });
}
