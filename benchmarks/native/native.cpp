// Many small GLMs by iteratively reweighted least squares, as fast as one CPU core allows: the yardstick "native".
//
// One lane of a vector register holds one group, or one share of a group's rows, so every instruction below works on LANES
// of them and there are no tails. A block, LANES lanes of rows, is copied once into an interleaved scratch that stays in
// the cache, and its whole iteration runs there:
//
//   interleave   rows of the lanes, row-major and one after another in memory, to x[row][column] vectors
//   look         one pass over the rows: eta, then exp and the working weights w and scores r, then X'WX and X'r
//   solve        Cholesky of X'WX in registers, all lanes at once; the increment and its length in the norm of X'WX
//   fit_block    R's start, then increments until every lane of the block has stopped
//
// `look` is where the time goes. It takes the rows in chunks, small enough that a chunk and the next one, which is fetched
// meanwhile, fit the first cache level. Within a chunk X'WX and X'r are summed tile by tile, a tile being as many of their
// entries as there are registers to hold them, so that the only memory traffic is reading x. Which tiles there are is
// decided at compile time from the number of columns.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <thread>
#include <utility>
#include <vector>

#if defined(__AVX512F__)
constexpr int LANES = 8, REGISTERS = 24;  // registers that a tile may sum in, of 32
#elif defined(__AVX2__)
constexpr int LANES = 4, REGISTERS = 10;  // of 16
#elif defined(__aarch64__)
constexpr int LANES = 2, REGISTERS = 24;
#else
constexpr int LANES = 2, REGISTERS = 10;
#endif

typedef double vec __attribute__((vector_size(8 * LANES)));
typedef int64_t mask __attribute__((vector_size(8 * LANES)));  // 0 or -1, what comparing two vec gives
typedef double loose __attribute__((vector_size(8 * LANES), aligned(8), may_alias));  // a vec anywhere in an array of double

constexpr long CHUNK = 8192;  // bytes of x

#define INLINE inline __attribute__((always_inline))
#define OUTLINE __attribute__((noinline))  // compiled once for all who call it
#define UNROLL _Pragma("GCC unroll 32")

// Hold a value that is used many times in a register: compilers like to read it from memory again for every use, and one
// vector read a cycle is all there is.
#if defined(__aarch64__)
#define HOLD(a) asm("" : "+w"(a))
#else
#define HOLD(a) asm("" : "+v"(a))
#endif

// libmvec's exp and log, by their names in the vector ABI; where that is not to be had, a loop over the lanes.
#if defined(LIBMVEC)
extern "C" {
#if defined(__AVX512F__)
vec _ZGVeN8v_exp(vec), _ZGVeN8v_log(vec);
static INLINE vec exp_of(vec x) { return _ZGVeN8v_exp(x); }
static INLINE vec log_of(vec x) { return _ZGVeN8v_log(x); }
#elif defined(__AVX2__)
vec _ZGVdN4v_exp(vec), _ZGVdN4v_log(vec);
static INLINE vec exp_of(vec x) { return _ZGVdN4v_exp(x); }
static INLINE vec log_of(vec x) { return _ZGVdN4v_log(x); }
#else
vec _ZGVbN2v_exp(vec), _ZGVbN2v_log(vec);
static INLINE vec exp_of(vec x) { return _ZGVbN2v_exp(x); }
static INLINE vec log_of(vec x) { return _ZGVbN2v_log(x); }
#endif
}
#else
static INLINE vec exp_of(vec x) {
  for (int l = 0; l < LANES; l++) x[l] = std::exp(x[l]);
  return x;
}
static INLINE vec log_of(vec x) {
  for (int l = 0; l < LANES; l++) x[l] = std::log(x[l]);
  return x;
}
#endif

static INLINE vec sqrt_of(vec x) {
  for (int l = 0; l < LANES; l++) x[l] = std::sqrt(x[l]);
  return x;
}

static INLINE bool any(mask m) {
  int64_t all = 0;
  for (int l = 0; l < LANES; l++) all |= m[l];
  return all != 0;
}

// ---------------------------------------------------------------------------------------------------------- the layout

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, mask{__VA_ARGS__})
#endif

// Transpose a square of LANES vectors by swapping its quarters across, then the quarters of these, and so on.
template <int half, int... lane>
static INLINE void transpose(vec* square, std::integer_sequence<int, lane...> lanes) {
  if constexpr (half > 0) {
    UNROLL for (int l = 0; l < LANES; l++) {
      if (l & half) continue;
      const vec a = square[l], b = square[l + half];
      square[l] = SHUFFLE(a, b, (lane & half ? lane - half + LANES : lane)...);
      square[l + half] = SHUFFLE(a, b, (lane & half ? lane + LANES : lane + half)...);
    }
    transpose<half / 2>(square, lanes);
  }
}

// out[k] lane l = source[l][k], and 0 from length[l] on.
static void interleave(const double* const* source, const long* length, long count, vec* out) {
  const long whole = *std::min_element(length, length + LANES);
  long k = 0;
  for (; k + LANES <= whole; k += LANES) {
    vec square[LANES];
    UNROLL for (int l = 0; l < LANES; l++) square[l] = *(const loose*)(source[l] + k);
    transpose<LANES / 2>(square, std::make_integer_sequence<int, LANES>{});
    UNROLL for (int l = 0; l < LANES; l++) out[k + l] = square[l];
  }
  for (; k < count; k++)
    for (int l = 0; l < LANES; l++) out[k][l] = k < length[l] ? source[l][k] : 0.0;
}

// ------------------------------------------------------------------------------------------------------------ families

// `start`: w and r + w (eta - offset) at R's start values of mu, for the first least-squares fit. Afterwards the working
// weight w and the score r at eta, in two steps: e = `exponential`(eta), and `weigh` turns e into w.
struct Gaussian {
  static INLINE void start(vec y, vec offset, vec& w, vec& r) {
    w = (vec){} + 1.0;
    r = y - offset;
  }
};

constexpr double LOG_3 = 1.0986122886681098;

struct Logistic {
  static INLINE void start(vec y, vec offset, vec& w, vec& r) {
    const vec mu = 0.5 * (y + 0.5);
    vec eta = LOG_3 * (2.0 * y - 1.0);  // where y is 0 or 1
    if (any((y != 0.0) & (y != 1.0))) eta = log_of(mu / (1.0 - mu));
    w = mu * (1.0 - mu);
    r = y - mu + w * (eta - offset);
  }
  static INLINE vec exponential(vec eta) { return exp_of(-eta); }
  static INLINE void weigh(vec y, vec& w, vec& r) {
    const vec mu = 1.0 / (1.0 + w);
    w = mu * (1.0 - mu);
    r = y - mu;
  }
};

struct Poisson {
  static INLINE void start(vec y, vec offset, vec& w, vec& r) {
    const vec mu = y + 0.1;
    w = mu;
    r = y - mu + w * (log_of(mu) - offset);
  }
  static INLINE vec exponential(vec eta) { return exp_of(eta); }
  static INLINE void weigh(vec y, vec& w, vec& r) { r = y - w; }
};

// --------------------------------------------------------------------------------------------------- one pass over rows

// A block in its scratch: x[row * P + column], y[row] and, or null, offset[row]. `ahead` is where the next block lies in
// the caller's arrays; the first pass over this one asks for it to be brought nearer.
struct Block {
  vec *x, *y, *offset;
  long rows;
  const double* ahead;
};

static constexpr int triangle(int i) { return i * (i + 1) / 2; }

template <int P>
struct Sums {
  vec gram[triangle(P)];  // X'WX, lower triangle by rows
  vec score[P];           // X'r
};

// Rows A..B and columns C..D of X'WX, below the diagonal, and X'r of these rows along with column 0.
template <int P, int A, int B, int C, int D>
static INLINE void sum_tile(const vec* x, const vec* w, const vec* r, long rows, Sums<P>& sums) {
  vec gram[B - A][D - C], score[B - A];
  UNROLL for (int i = A; i < B; i++) {
    UNROLL for (int j = C; j < D; j++)
      if (j <= i) gram[i - A][j - C] = sums.gram[triangle(i) + j];
    score[i - A] = sums.score[i];
  }
  for (long row = 0; row < rows; row++, x += P) {
    if (C == 0) UNROLL for (int j = A; j < B; j++) __builtin_prefetch(x + rows * P + j);  // the next chunk
    vec wx[B - A], wrow = w[row], rrow = r[row];
    HOLD(wrow);
    if (C == 0) HOLD(rrow);
    UNROLL for (int i = A; i < B; i++) {
      vec xi = x[i];
      HOLD(xi);
      wx[i - A] = wrow * xi;
      if (C == 0) score[i - A] += rrow * xi;
    }
    UNROLL for (int j = C; j < D; j++) {
      vec xj = x[j];
      HOLD(xj);
      UNROLL for (int i = std::max(A, j); i < B; i++) gram[i - A][j - C] += wx[i - A] * xj;
    }
  }
  UNROLL for (int i = A; i < B; i++) {
    UNROLL for (int j = C; j < D; j++)
      if (j <= i) sums.gram[triangle(i) + j] = gram[i - A][j - C];
    if (C == 0) sums.score[i] = score[i - A];
  }
}

// How many whole rows of X'WX from row A on can be summed in the registers together.
static constexpr int whole_rows(int P, int A) {
  int rows = 0, used = 0;
  while (A + rows < P && used + A + rows + 2 <= REGISTERS) used += A + rows++ + 2;
  return rows;
}

// All tiles from row A, column C on.
template <int P, int A, int C>
static INLINE void sum_tiles(const vec* x, const vec* w, const vec* r, long rows, Sums<P>& sums) {
  if constexpr (A < P) {
    constexpr int whole = C == 0 ? whole_rows(P, A) : 0;
    if constexpr (whole > 1 || A + whole == P) {
      sum_tile<P, A, A + whole, 0, A + whole>(x, w, r, rows, sums);
      sum_tiles<P, A + whole, 0>(x, w, r, rows, sums);
    } else {  // rows too long for that: a few, piece by piece
      constexpr int few = REGISTERS >= 20 ? 4 : 2, B = std::min(A + few, P), D = std::min(C + REGISTERS / few - 1, B);
      sum_tile<P, A, B, C, D>(x, w, r, rows, sums);
      sum_tiles<P, D == B ? B : A, D == B ? 0 : D>(x, w, r, rows, sums);
    }
  }
}

// Add a chunk's rows to X'WX and X'r.
template <int P>
static OUTLINE void sum_rows(const vec* x, const vec* w, const vec* r, long rows, Sums<P>& sums) {
  sum_tiles<P, 0, 0>(x, w, r, rows, sums);
}

// X'WX and X'r at beta, or with `first` those of R's start.
template <int P, class Family, bool first>
static OUTLINE void look(const Block& block, const vec* beta, Sums<P>& sums) {
  constexpr long MOST = std::clamp(CHUNK / (P * long(sizeof(vec))), 8L, 64L);
  const long chunks = (block.rows + MOST - 1) / MOST;
  vec w[MOST], r[MOST];
  sums = {};
  for (long chunk = 0; chunk < chunks; chunk++) {
    const long row = chunk * block.rows / chunks, rows = (chunk + 1) * block.rows / chunks - row;
    const vec *x = block.x + row * P, *y = block.y + row, *offset = block.offset ? block.offset + row : nullptr;
    if constexpr (first) {
      if (block.ahead)
        for (long k = 0; k < rows * P; k++) __builtin_prefetch(block.ahead + (row * P + k) * LANES, 0, 2);
      for (long i = 0; i < rows; i++) Family::start(y[i], offset ? offset[i] : (vec){}, w[i], r[i]);
    } else {
      vec b[P];
      UNROLL for (int j = 0; j < P; j++) b[j] = beta[j];
      for (long i = 0; i < rows; i++) {
        vec eta = x[i * P] * b[0];
        UNROLL for (int j = 1; j < P; j++) eta += x[i * P + j] * b[j];
        w[i] = eta;
      }
      if (offset)
        for (long i = 0; i < rows; i++) w[i] += offset[i];
      for (long i = 0; i < rows; i++) w[i] = Family::exponential(w[i]);
      for (long i = 0; i < rows; i++) Family::weigh(y[i], w[i], r[i]);
    }
    sum_rows<P>(x, w, r, rows, sums);
  }
}

// Every lane beside its partner, `step` lanes on or back.
static INLINE vec swapped(vec x, int step) {
  vec other;
  for (int l = 0; l < LANES; l++) other[l] = x[l ^ step];
  return other;
}

// Every lane of a group's `share` lanes gets their sum.
template <int P>
static INLINE void sum_lanes(Sums<P>& sums, int share) {
  for (int step = 1; step < share; step *= 2) {
    for (vec& sum : sums.gram) sum += swapped(sum, step);
    for (vec& sum : sums.score) sum += swapped(sum, step);
  }
}

// beta of X'WX beta = X'r, and X'r . beta, its squared length in the norm of X'WX.
template <int P>
static OUTLINE vec solve(Sums<P>& sums, vec* beta) {
  vec *L = sums.gram, inverse[P], z[P], squared = {};
  UNROLL for (int j = 0; j < P; j++) {
    vec pivot = L[triangle(j) + j];
    UNROLL for (int k = 0; k < j; k++) pivot -= L[triangle(j) + k] * L[triangle(j) + k];
    inverse[j] = 1.0 / sqrt_of(pivot);
    UNROLL for (int i = j + 1; i < P; i++) {
      vec entry = L[triangle(i) + j];
      UNROLL for (int k = 0; k < j; k++) entry -= L[triangle(i) + k] * L[triangle(j) + k];
      L[triangle(i) + j] = entry * inverse[j];
    }
    z[j] = sums.score[j];
    UNROLL for (int k = 0; k < j; k++) z[j] -= L[triangle(j) + k] * z[k];
    z[j] *= inverse[j];
    squared += z[j] * z[j];
  }
  UNROLL for (int j = P - 1; j >= 0; j--) {
    beta[j] = z[j];
    UNROLL for (int i = j + 1; i < P; i++) beta[j] -= L[triangle(i) + j] * beta[i];
    beta[j] *= inverse[j];
  }
  return squared;
}

// -------------------------------------------------------------------------------------------------------- one block's fit

// Fit the lanes of a block. A lane stops when its last increment, and by the rate at which increments shrink also the error
// that is left, is at most `tol` long in the norm of X'WX: in units of standard errors.
template <int P, class Family, bool iterates>
static void fit_block(const Block& block, int share, double tol, int max_iterations, vec* beta, mask& iterations) {
  Sums<P> sums;
  look<P, Family, true>(block, beta, sums);
  sum_lanes<P>(sums, share);
  solve<P>(sums, beta);
  iterations = (mask){} + 1;
  if constexpr (iterates) {
    mask running = (mask){} - 1;
    vec previous = (vec){} + 1e300, increment[P];
    iterations = (mask){};
    for (int k = 0; k < max_iterations && any(running); k++) {
      look<P, Family, false>(block, beta, sums);
      sum_lanes<P>(sums, share);
      const vec length = sqrt_of(solve<P>(sums, increment)), rate = length / previous;
      UNROLL for (int j = 0; j < P; j++) beta[j] += running ? increment[j] : (vec){};
      iterations -= running;
      running &= ~((length <= tol) & (length * rate <= tol * (1.0 - rate)));
      previous = length;
    }
  }
}

struct Job {
  const double *X, *y, *offset;  // (groups, rows, P), (groups, rows), the same or null
  long groups, rows;
  double tol;
  int max_iterations, threads, share;
  double* coefficients;  // (groups, P)
  int32_t* iterations;   // (groups,)
};

// Take block after block until there are none.
template <int P, class Family, bool iterates>
static void work(const Job& job, std::atomic<long>& next) {
  const long per_block = LANES / job.share, blocks = (job.groups + per_block - 1) / per_block;
  const long deep = (job.rows + job.share - 1) / job.share;
  vec* scratch = (vec*)std::aligned_alloc(64, (deep * (P + 2) * sizeof(vec) + 63) / 64 * 64);
  Block block = {scratch, scratch + deep * P, job.offset ? scratch + deep * (P + 1) : nullptr, deep, nullptr};
  long current = next++;
  while (current < blocks) {
    const long ahead = next++;
    long first[LANES], wide[LANES], narrow[LANES];
    const double *x[LANES], *y[LANES], *offset[LANES];
    for (int l = 0; l < LANES; l++) {  // lanes beyond the last group repeat it
      const long group = std::min(current * per_block + l / job.share, job.groups - 1), part = l % job.share;
      const long from = part * job.rows / job.share, to = (part + 1) * job.rows / job.share;
      first[l] = group * job.rows + from, narrow[l] = to - from, wide[l] = narrow[l] * P;
      x[l] = job.X + first[l] * P, y[l] = job.y + first[l], offset[l] = job.offset + (job.offset ? first[l] : 0);
    }
    interleave(x, wide, deep * P, block.x);
    interleave(y, narrow, deep, block.y);
    if (job.offset) interleave(offset, narrow, deep, block.offset);
    block.ahead = (ahead + 1) * per_block <= job.groups ? job.X + ahead * per_block * job.rows * P : nullptr;
    vec beta[P];
    mask iterations;
    fit_block<P, Family, iterates>(block, job.share, job.tol, job.max_iterations, beta, iterations);
    for (int l = 0; l < LANES; l += job.share) {
      const long group = current * per_block + l / job.share;
      if (group >= job.groups) break;
      for (int j = 0; j < P; j++) job.coefficients[group * P + j] = beta[j][l];
      job.iterations[group] = int32_t(iterations[l]);
    }
    current = ahead;
  }
  std::free(scratch);
}

template <int P>
static void run(const Job& job, int family) {
  const auto worker = family == 0 ? work<P, Gaussian, false> : family == 1 ? work<P, Logistic, true> : work<P, Poisson, true>;
  std::atomic<long> next{0};
  std::vector<std::thread> others;
  for (int k = 1; k < job.threads; k++) others.emplace_back([&] { worker(job, next); });
  worker(job, next);
  for (auto& other : others) other.join();
}

extern "C" {

int native_lanes() { return LANES; }

// family: 0 gaussian, 1 logistic, 2 Poisson. share: how many lanes share the rows of one group, a power of two up to LANES.
void native_fit(const double* X, const double* y, const double* offset, long groups, long rows, int family, double tol,
                int max_iterations, int threads, int share, double* coefficients, int32_t* iterations) {
  const Job job = {X, y, offset, groups, rows, tol, max_iterations, threads, share, coefficients, iterations};
  run<COLUMNS>(job, family);
}
}
