"use strict";
// Which of several speeds or costs is clearly better than which, as analysis/ranking.py. No DOM here.
const comparing = (() => {
  const is = (value) => value !== null && value !== undefined;
  const SIGNIFICANCE_LEVEL = 0.05;
  const MAX_DEGREES_OF_FREEDOM = 1000; // as in analysis/ranking.py

  // Logarithm of the gamma function: Lanczos, SIAM Journal on Numerical Analysis B 1 (1964), with 9 coefficients.
  const LANCZOS = [0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
    12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7];
  const logGamma = (x) => {
    const t = x + 6.5;
    const sum = LANCZOS.reduce((total, coefficient, index) => index === 0 ? coefficient : total + coefficient / (x - 1 + index), 0);
    return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(t) - t + Math.log(sum);
  };

  // Regularised incomplete beta function by its continued fraction (Lentz): Press et al., Numerical Recipes (2007), 6.4.
  const betaFraction = (a, b, x) => {
    const tiny = 1e-300;
    const nonzero = (value) => Math.abs(value) < tiny ? tiny : value;
    let c = 1;
    let d = 1 / nonzero(1 - (a + b) * x / (a + 1));
    let result = d;
    for (let m = 1; m < 1000; m++) {
      const even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
      d = 1 / nonzero(1 + even * d);
      c = nonzero(1 + even / c);
      result *= d * c;
      const odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
      d = 1 / nonzero(1 + odd * d);
      c = nonzero(1 + odd / c);
      result *= d * c;
      if (Math.abs(d * c - 1) < 1e-15) break;
    }
    return result;
  };
  const incompleteBeta = (a, b, x) => {
    if (x <= 0 || x >= 1) return x <= 0 ? 0 : 1;
    const front = Math.exp(logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log1p(-x));
    return x < (a + 1) / (a + b + 2) ? front * betaFraction(a, b, x) / a : 1 - front * betaFraction(b, a, 1 - x) / b;
  };

  // Two-sided p-value of Student's t.
  const studentP = (df, t) => incompleteBeta(df / 2, 0.5, df / (df + t * t));

  // As holm in analysis/significance.py; null stays null.
  const holm = (pValues) => {
    const ascending = pValues.map((p, index) => [p, index]).filter(([p]) => is(p)).sort((one, other) => one[0] - other[0] || one[1] - other[1]);
    const adjusted = pValues.map(() => null);
    let largest = 0;
    ascending.forEach(([p, index], place) => {
      largest = Math.max(largest, Math.min(1, (ascending.length - place) * p));
      adjusted[index] = largest;
    });
    return adjusted;
  };

  const logDistance = (low, high) => low > 0 ? Math.log(high / low) : Infinity;
  const part = (halfWidth, estimate) => ({ variance: (halfWidth / estimate.t) ** 2, df: estimate.df });

  const pValue = (one, other) => {
    if ([one.low, one.high, other.low, other.high].some((end) => !is(end))) return null;
    const [low, high] = one.value <= other.value ? [one, other] : [other, one];
    if (low.value <= 0) return low.value === low.high && high.value > low.value ? 0 : 1;
    const parts = [part(logDistance(low.value, low.high), low), part(logDistance(high.low, high.value), high)];
    if (parts.some(({ variance }) => variance === Infinity)) return null;
    const total = parts[0].variance + parts[1].variance;
    const distance = Math.log(high.value / low.value);
    if (total <= 0) return distance === 0 ? 1 : 0;
    const df = Math.min(total ** 2 / parts.reduce((sum, { variance, df: own }) => sum + variance ** 2 / own, 0), MAX_DEGREES_OF_FREEDOM);
    return studentP(df, distance / Math.sqrt(total));
  };

  // For each group of figures [first, level]: index of the best, null if fewer than two are known, and indices of those that are
  // not clearly worse. An estimate has value, low, high, df, and t: the half-width of its interval in standard errors.
  const rankAll = (groups, most) => {
    const pairs = groups.flatMap((figures, group) => figures.flatMap((one, index) => is(one)
      ? figures.flatMap((other, place) => place > index && is(other) ? [{ group, index, place, p: pValue(one, other) }] : []) : []));
    const adjusted = holm(pairs.map(({ p }) => p));
    const clear = new Set(pairs.flatMap(({ group, index, place }, number) => is(adjusted[number]) && adjusted[number] < SIGNIFICANCE_LEVEL
      ? [`${group} ${index} ${place}`, `${group} ${place} ${index}`] : []));
    return groups.map((figures, group) => {
      const known = figures.map((figure, index) => [figure, index]).filter(([figure]) => is(figure));
      if (known.length < 2) return [null, []];
      const first = known.reduce((best, one) => (most ? one[0].value > best[0].value : one[0].value < best[0].value) ? one : best)[1];
      return [first, known.map(([, index]) => index).filter((index) => index !== first && !clear.has(`${group} ${first} ${index}`))];
    });
  };

  return { rankAll, studentP };
})();
