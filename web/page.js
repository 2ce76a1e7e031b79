// The page of one city.

import { Explorer } from "./explorer.js";
import { startPage } from "./page_start.js";

startPage((root, data, plotly) => new Explorer(root, data, { plotly }).start());
