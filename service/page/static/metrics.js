// Reads Prometheus' text format.

const SAMPLE = /^(\w+)(?:\{(.*)\})? ([^ ]+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** Return the samples of a page of metrics: name, labels, value. */
export function parse(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const found = line.startsWith("#") ? null : SAMPLE.exec(line);
    if (found) {
      const labels = Object.fromEntries([...(found[2] ?? "").matchAll(LABEL)].map(([, name, value]) => [name, value]));
      samples.push({ name: found[1], labels, value: Number(found[3]) });
    }
  }
  return samples;
}

/** Return the sums of a metric by the value of a label, or by a function of all labels. */
export function sumsBy(samples, name, label) {
  const of = typeof label === "function" ? label : (labels) => labels[label];
  const sums = new Map();
  for (const each of samples) {
    if (each.name === name) sums.set(of(each.labels), (sums.get(of(each.labels)) ?? 0) + each.value);
  }
  return sums;
}

/** Return the sum of a metric over its labels; null if there is none. */
export function total(samples, name) {
  const found = samples.filter((each) => each.name === name);
  return found.length ? found.reduce((sum, each) => sum + each.value, 0) : null;
}

/** Return the counts of a histogram's buckets, summed over its labels, as [upper bound, count]. */
export function buckets(samples, name) {
  const cumulative = [...sumsBy(samples, `${name}_bucket`, "le")].sort(([one], [other]) => bound(one) - bound(other));
  return cumulative.map(([upper, value], place) => [bound(upper), value - (place ? cumulative[place - 1][1] : 0)]);
}

const bound = (text) => (text === "+Inf" ? Infinity : Number(text));
