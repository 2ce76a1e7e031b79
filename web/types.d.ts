/** Shapes that several modules share: the data that explorer_data.py writes, and the state of the page. */

import type { AddressBar } from "./address_bar.js";
import type { Explorer } from "./explorer.js";
import type { Frame } from "./frame.js";

export type NumberArray = Int8Array | Uint8Array | Int16Array | Uint16Array | Int32Array | Uint32Array | Float32Array;
export type Rgb = number[];
export type LatLon = [number, number];
export type Point = [number, number];
/** What `element` takes as a child; null and false stand for nothing. */
export type Child = Node | string | null | undefined | false | Child[];

// --- the data ---

/** An array as explorer_data.packed writes it. */
export interface Packed { dtype: string; shape: number[]; data?: string | ArrayBuffer; gzip?: string }

/** explorer_data.Quantised: `mean + scale * steps`. */
export interface PackedVectors { steps: Packed; scale: Packed; mean: Packed }

export interface Category { name: string; colour: string }

interface ColouringBase { key: string; label: string; column: string }
export interface CategoryColouring extends ColouringBase {
  kind: "category"; values: Packed; categories: Category[]; none: Category; ordered: boolean; editable: boolean;
}
export interface NumberColouring extends ColouringBase {
  kind: "number"; values: Packed; range: [number, number]; caption: string; scale: number; digits: number; unit: string;
}
export interface RgbColouring extends ColouringBase { kind: "rgb"; values: Packed; channels: Category[] }
/** Shown, searched and exported; colours nothing. */
export interface TextColouring extends ColouringBase { kind: "text"; values: string[] }
export interface SimilarityColouring extends ColouringBase { kind: "similarity"; caption: string; hint: string }
/** One entry of colourings.py. */
export type ColouringData = CategoryColouring | NumberColouring | RgbColouring | TextColouring | SimilarityColouring;

/** Square pictures in WebP sheets. */
export interface SheetData { size: number; columns: number; per_sheet: number; sheets: string[] }

/** `scale` turns the whole numbers of each dimension into coordinates, which go from 0 to `extent`. */
export interface ProjectionData {
  points: Packed; scale: number[]; extent: number[]; trustworthiness: number | null; explained: number[] | null;
}

export interface MapData {
  /** Missing in the live app, which sends it later. */
  image?: string;
  origin: [number, number]; width: number; height: number; px_per_tile: number; tiles: number;
}

/** One layer of paint: its colour and opacity for each of 256 levels of brightness. */
export interface CoatData { layer: number; grown: boolean; colours: Packed; opacity: Packed }

export interface PageData {
  title: string; subtitle: string; attribution: string;
  zoom: number; count: number; dimensions: number; earth_radius_km: number;
  layers: Category[]; nothing_drawn: string;
  blank_colour: string; missing_colour: string; missing_line_colour: string; ramp: string[];
  paint: { ground: Rgb; coats: CoatData[]; layers: Packed };
  limits: { neighbours: number; walk_steps: number };
  algorithms: Record<string, string>;
  colourings: ColouringData[];
  arrays: { tile_xy: Packed; dominant_layer: Packed; layer_bits: Packed; layer_mass: Packed };
  /** Missing in the live app, where Python searches. */
  vectors?: PackedVectors;
  /** What stands out on each tile: indices into `texts`, the most telling first. Missing in the live app. */
  words?: { texts: string[]; of_tile: Packed; same_shown: number } | null;
  /** Named places: every line of a text is a name of it, the usual one first; `kind` counts in `kinds`. */
  names?: { texts: string[]; kinds: string[]; kind: Packed; latlon: Packed } | null;
  sprites: SheetData;
  map: MapData;
  projections: Record<string, ProjectionData>;
  /** The rest is missing in the live app, which has its own panels. */
  damaged?: string[];
  planes?: SheetData & { cell_of_part: Packed } | null;
  /** `lost`: of every drawn layer of every tile, then of every one of `parts` of every tile. */
  reasons?: { dimensions: number; axes: Packed; lost: PackedVectors; parts: string[] } | null;
  search_note?: string;
  /** How a dropped file becomes columns: the rules of own_columns.py. */
  own_columns?: OwnRules;
  facts?: { name: string; value: string }[];
  compare?: CompareData;
}

/** Two cities or two encoders: what is different on the second side, and what is known of both together. */
export interface CompareData {
  kind: "cities" | "encoders"; title: string; subtitle: string;
  /** What each side shows, in a few words. */
  details: [string, string];
  other: Partial<PageData>;
  /** Of two cities: the most similar tile of the other city for each tile. */
  closest?: [Packed, Packed];
  /** Of two encoders: mean share of the nearest tiles that both find. */
  agreement?: number;
}

export interface OwnRules {
  keys: [string, string][]; not_columns: string[]; place_columns: string[]; most_categories: number; most_texts: number; longest_text: number;
  percentiles: [number, number]; palette: string[]; none: Category;
}

// --- Parquet files ---

export interface ParquetColumn {
  element: { name: string; logical_type?: { type: string; crs?: string } }; children: ParquetColumn[];
}
export interface ParquetData { name: string; type: string; data: unknown[] }
/** What build_libraries.mjs takes from the packages it names. */
export interface ParquetLibrary {
  parquetMetadataAsync(file: object): Promise<object>;
  parquetSchema(metadata: object): ParquetColumn;
  parquetReadObjects(options: object): Promise<Record<string, any>[]>;
  parquetWriteBuffer(options: { columnData: ParquetData[]; kvMetadata: { key: string; value: string }[] }): ArrayBuffer;
  gunzip(packed: Uint8Array, into: Uint8Array): Uint8Array;
  unzstd(packed: Uint8Array, into?: Uint8Array): Uint8Array;
}

// --- the page ---

export type Theme = "light" | "dark" | "system";
export type Tool = "pan" | "box" | "lasso";
export type SelectionMode = "new" | "add" | "remove";
export type Slot = "tile" | "a" | "b" | "c";
export type Tab = "alike" | "sum" | "walk" | "selection" | "filter";

/** What is shown. Tiles are rows of the page's data; -1 is none. */
export interface State {
  alg: string; dim: number; colour: string;
  tile: number; a: number; b: number; c: number;
  km: number; tab: Tab; tool: Tool;
  dots: "dots" | "pictures"; preview: "composite" | "layer"; map: "coloured" | "plain";
  theme: Theme;
  labels: "names" | "none";
  /** Names that the reader gave to categories, by "colouring:category". */
  names: ReadonlyMap<string, string>;
  /** One bit for each layer of the large picture. */
  layers: number;
  selection: ReadonlySet<number>;
  /** Which tiles are shown in colour, by key of a colouring. */
  filters: ReadonlyMap<string, Filter>;
  /** What drawing a box or a lasso does. */
  mode: SelectionMode;
  /** Selections that the reader named. */
  saved: ReadonlyMap<string, ReadonlySet<number>>;
  /** Counts the files that were dropped on the page. */
  files: number;
}

/** Numbers from low to high; categories that are kept (-1: none); or texts that contain something. */
export type Filter =
  | { kind: "range"; low: number; high: number }
  | { kind: "keep"; categories: ReadonlySet<number> }
  | { kind: "contains"; text: string };

export interface TileId { z: number; x: number; y: number }

export interface Options {
  /** Gives Plotly; called once the first dots are drawn. */
  plotly: () => Promise<PlotlyApi>;
  /** Keep the state in the page's address; default true. */
  hash?: boolean;
  theme?: Theme;
  /** What tells this explorer from another one of the same page. */
  name?: string;
  /** Where the state comes from, as an address without the #; default: the page's address. */
  start?: string;
  /** What writes the address, and what is around the views; default: the explorer's own. */
  address?: AddressBar;
  frame?: (explorer: Explorer) => Frame;
}

/** A ring around a tile, with a short label beside it. */
export interface Ring { row: number; radius: number; colour: string; label?: string; width?: number }
/** A place that is no tile of the page: `tile` are its coordinates on the map, `point` those in the flat projection. */
export interface Pin { tile: Point; point: Point | null; label: string }
export interface Marks { rings: Ring[]; path: number[]; pins?: Pin[] }

/** How all dots of a view look: their width in pixels, discs or squares, and a line around each. */
export interface DotStyle { size: number; round: boolean; line?: { width: number; colour: Rgb } | null }

/** Colours of the current theme; each is a custom property of explorer.css. */
export interface Ink {
  accent: string; onAccent: string; halo: string; greyDot: string; greyTile: string; grid: string; dotEdge: string;
  wash: string; text: string; card: string; faint: string; slot: string;
}

export interface LegendItem { name: string; colour: Rgb; count: number; category: number }
export type Legend =
  | { kind: "category"; key: string; editable: boolean; items: LegendItem[]; values: NumberArray }
  | { kind: "ramp"; ramp: Rgb[]; bins: number[]; labels: [string, string]; caption: string }
  | { kind: "rgb"; channels: Category[] }
  | { kind: "hint"; text: string };

/** Similarities of every tile, and the rows of the best, best first. */
export interface Found { similarities: Float32Array; rows: number[] }

// --- Plotly, as far as the embedding uses it ---

export interface PlotlyApi {
  react(plot: HTMLElement, data: object[], layout: object, config: object): Promise<unknown>;
  relayout(plot: HTMLElement, change: object): Promise<unknown>;
  purge(plot: HTMLElement): void;
  toImage(plot: HTMLElement, options: object): Promise<string>;
  Plots: { resize(plot: HTMLElement): Promise<unknown> };
}
export interface PlotlyElement extends HTMLElement {
  on(event: string, listener: (change: Record<string, any>) => void): void;
}

// --- the live app ---

/** What Streamlit gives a component. */
export interface Component<T> {
  data: T; parentElement: HTMLElement; setTriggerValue(name: string, value: unknown): void;
}

/** The data of a view, which app_view.py sends with every rerun. */
export interface LiveData {
  city: string;
  projection: { name: string; dimensions: number; packed: ProjectionData };
  colour: string;
  tile: string;
  /** Ids of tiles with rings, their labels if these are not 1, 2, …, and whether a line joins them. */
  marked: string[]; labels: string[]; path: boolean;
  /** Places that are no tiles of the city. */
  pins: Pin[];
  /** Cosine similarity of every tile to the picked one, in steps of `scale`; null if none is picked. */
  similarities: Packed & { scale: number } | null;
  /** Views of one series show the same ground: another choice of its tiles leaves the map where it is. */
  series: string;
  /** Whether Python chooses tiles by what the map shows. */
  follows: boolean;
  panes: string;
  theme: Theme;
}

/** Pictures of a city that have arrived; `ask` requests sheets by number. */
export interface LivePictures extends EventTarget {
  map?: string; sheets?: Record<number, string>; ask?: (numbers: number[]) => void;
}

declare global {
  interface Window {
    Plotly?: PlotlyApi;
    loc2vecCities?: Map<string, Omit<PageData, "projections">>;
    loc2vecPictures?: Record<string, LivePictures>;
    loc2vecShow?: (component: Component<LiveData>) => () => void;
  }
  interface Uint8ArrayConstructor {
    fromBase64?: (base64: string) => Uint8Array<ArrayBuffer>; // browsers since 2025
  }
}
