// Receives pictures for the views of the live app: the base map of a city, and the sheets of tile pictures that a view
// asked for. data: { city, map: address of the image } or { city, sheets: { number: address } }

export default function ({ data, setTriggerValue }) {
  const pictures = ((window.loc2vecPictures ??= {})[data.city] ??= new EventTarget());
  if (data.sheets) pictures.ask = (numbers) => setTriggerValue("wanted", numbers);
  pictures.map = data.map ?? pictures.map;
  pictures.sheets = { ...pictures.sheets, ...data.sheets };
  pictures.dispatchEvent(new Event("arrived"));
}
