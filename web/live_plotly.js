
// Stands after Plotly's script, which leaves window.Plotly behind, and tells the views that wait for it (live_view.js).
window.dispatchEvent(new Event("plotly"));

export default function () {} // a component has to have one
