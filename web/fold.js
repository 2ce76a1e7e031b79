// Text made comparable: without case, accents and punctuation, in Latin letters, with spellings that sound alike as one.

/** Letters of other alphabets in Latin ones, as road signs write them; those without a sound become nothing. */
const LATIN = new Map(Object.entries({
  а: "a", б: "b", в: "v", г: "g", ґ: "g", д: "d", е: "e", є: "ie", ж: "zh", з: "z", и: "i", і: "i",
  к: "k", л: "l", м: "m", н: "n", о: "o", п: "p", р: "r", с: "s", т: "t", у: "u", ф: "f", х: "kh", ц: "ts",
  ч: "ch", ш: "sh", щ: "shch", ъ: "", ы: "y", ь: "", э: "e", ю: "iu", я: "ia", ђ: "dj", ј: "j", љ: "lj",
  њ: "nj", ћ: "c", џ: "dz", ѕ: "z", ә: "a", ғ: "g", қ: "k", ң: "n", ө: "o", ұ: "u", ү: "u", һ: "h",
  α: "a", β: "v", γ: "g", δ: "d", ε: "e", ζ: "z", η: "i", θ: "th", ι: "i", κ: "k", λ: "l", μ: "m", ν: "n", ξ: "x",
  ο: "o", π: "p", ρ: "r", σ: "s", ς: "s", τ: "t", υ: "y", φ: "f", χ: "kh", ψ: "ps", ω: "o",
  ß: "ss", æ: "ae", œ: "oe", ø: "o", ð: "d", þ: "th", ł: "l", đ: "d", ı: "i", ŋ: "n",
}));
/** @type {[RegExp, string][]} spellings of one sound, in this order */
const SOUNDS = [
  [/shch|sch/g, "sh"], [/kh|ch(?=[bcdfghklmnprstv])/g, "h"], [/zh|dj|dz/g, "j"], [/ph/g, "f"], [/ck|q|c(?=[aoukl])/g, "k"],
  [/tz|cz|ts/g, "c"], [/w/g, "v"], [/yi|iy|ij|ii|j(?=[aeou])|y/g, "i"], [/i(?=[aeou])/g, ""], [/h(?![aeiou])/g, ""],
  [/(.)\1+/g, "$1"],
];

/**
 * Lower case without accents and punctuation, words separated by one space; other alphabets stay.
 * @param {string} text
 */
export function plain(text) {
  return text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase().replace(/[^\p{L}\p{N}]+/gu, " ").trim();
}

/**
 * In Latin letters as far as they are known, and spelt as it sounds.
 * @param {string} text
 */
export function sounded(text) {
  let latin = Array.from(plain(text), (letter) => LATIN.get(letter) ?? letter).join("");
  for (const [spelling, sound] of SOUNDS) latin = latin.replace(spelling, sound);
  return latin;
}

/**
 * Whether one letter was typed wrong, left out, added, or swapped with the next at most.
 * @param {string} typed
 * @param {string} word
 */
export function isNearly(typed, word) {
  if (Math.abs(typed.length - word.length) > 1) return false;
  let start = 0;
  while (start < typed.length && typed[start] === word[start]) start++;
  let [a, b] = [typed.length, word.length];
  while (a > start && b > start && typed[a - 1] === word[b - 1]) [a, b] = [a - 1, b - 1];
  const [x, y] = [typed.slice(start, a), word.slice(start, b)];
  return (x.length <= 1 && y.length <= 1) || (x.length === 2 && y.length === 2 && x[0] === y[1] && x[1] === y[0]);
}
