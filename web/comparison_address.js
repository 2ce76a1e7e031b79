// Two sides in one address: the first side as on a page of its own, and what is different on the second, marked as such.

/** @import { CompareData } from "./types.d.ts" */

/** @type {Record<CompareData["kind"], string[]>} parts of an address that each side has for itself */
const OWN = { cities: ["tile", "a", "b", "c", "sel", "set"], encoders: ["only", "name"] };
const MARK = "second-";

/**
 * The address of the second side alone.
 * @param {string} text the address of the page
 * @param {CompareData["kind"]} kind
 */
export function addressOfSide(text, kind) {
  const given = new URLSearchParams(text);
  for (const name of OWN[kind]) {
    given.delete(name);
    for (const value of given.getAll(MARK + name)) given.append(name, value);
  }
  return given.toString();
}

/**
 * @param {string} first address of each side alone
 * @param {string} second
 * @param {CompareData["kind"]} kind
 * @param {{side: boolean, where: string}} view whether the second side is the active one, and where places are listed
 */
export function joinedAddress(first, second, kind, { side, where }) {
  const [out, other] = [new URLSearchParams(first), new URLSearchParams(second)];
  for (const name of OWN[kind]) for (const value of other.getAll(name)) out.append(MARK + name, value);
  if (side) out.set("side", "second");
  if (where === "here") out.set("where", where);
  return out.toString().replaceAll("%2F", "/");
}
