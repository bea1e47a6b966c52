// Which samples stand for all: a long run has more than can be drawn, and no extreme and no failure may be hidden by others.

/** The places of a piece that stand for it: the first, the last, the extremes of each column, the first outside, the first unknown. */
function ofPiece(from, until, columns, judgements) {
  const places = [from, until - 1];
  for (const column of columns) {
    let [low, high] = [-1, -1];
    for (let at = from; at < until; at += 1) {
      const value = column[at];
      if (value === null) continue;
      if (low < 0 || value < column[low]) low = at;
      if (high < 0 || value > column[high]) high = at;
    }
    if (low >= 0) places.push(low, high);
  }
  let [outside, unknown] = [-1, -1];
  for (let at = from; at < until && (outside < 0 || unknown < 0); at += 1) {
    if (outside < 0 && judgements[at] === 'outside') outside = at;
    if (unknown < 0 && judgements[at] === 'unknown') unknown = at;
  }
  places.push(...[outside, unknown].filter((at) => at >= 0));
  return [...new Set(places)].sort((a, b) => a - b);
}

/**
 * The places of the samples that stand for all, at most `most`, by equally long pieces of time; null if there are no more samples than that.
 * `columns` are lists of numbers or null, and times do not decrease.
 */
export function standing(times, columns, judgements, most) {
  const count = times.length;
  if (count <= most) return null;
  const pieces = Math.max(1, Math.floor(most / (4 + 2 * columns.length)));
  const begin = times[0];
  const width = (times[count - 1] - begin) / pieces;
  const places = [];
  for (let piece = 0, from = 0; from < count; piece += 1) {
    let until = from;
    while (until < count && (piece >= pieces - 1 || times[until] < begin + (piece + 1) * width)) until += 1;
    if (until > from) places.push(...ofPiece(from, until, columns, judgements));
    from = until;
  }
  return places;
}

/** A list with only these places of it. */
export const at = (list, places) => (places === null ? list : places.map((place) => list[place]));
