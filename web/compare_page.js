// The page of two cities, or of two encoders.

import { Comparison } from "./comparison.js";
import { startPage } from "./page_start.js";

startPage((root, data, plotly) => new Comparison(root, data, plotly).start());
