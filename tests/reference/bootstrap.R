# A bootstrap by boot, for tests/test_bootstrap.py: which rows were drawn, the estimates of every replicate, and boot.ci's
# intervals. Run after robust.R, whose data it uses. Writes bootstrap.json beside itself.
suppressMessages({library(boot); library(jsonlite)})
options(warn = -1)
data <- fromJSON("tests/reference/robust.json")$data
d <- with(data, data.frame(x, z, w = weights, o = offset, trials, y = data$y$binomial))
d <- d[d$w > 0, ]
tight <- glm.control(epsilon = 1e-15, maxit = 200)
estimate <- function(count, link) {
  v <- d$trials * count
  formula <- y ~ x + z                                # whose environment has v
  start <- coef(glm(formula, binomial(link), d, v, offset = o))
  for (i in 1:6) start <- coef(glm(formula, binomial(link), d, v, offset = o, control = tight, start = start))
  unname(start)
}
set.seed(5)
n <- nrow(d)
R <- 59
counts <- t(rmultinom(R, n, rep(1, n)))
cases <- lapply(c("logit", "cloglog"), function(link) {
  t0 <- estimate(rep(1, n), link)
  t <- t(apply(counts, 1, estimate, link))
  # How estimates move with weights, by central differences of two widths.
  step <- function(i, e) { w <- rep(1, n); w[i] <- 1 + e; up <- estimate(w, link); w[i] <- 1 - e; (up - estimate(w, link)) / (2 * e) }
  L <- t(sapply(1:n, function(i) (4 * step(i, 1e-3) - step(i, 2e-3)) / 3))
  made <- list(t0 = t0, t = t, R = R, data = d, sim = "ordinary", stype = "w", call = quote(boot(d)), strata = rep(1, n), weights = rep(1 / n, n))
  class(made) <- "boot"
  intervals <- lapply(1:3, function(j) {
    ci <- boot.ci(made, conf = 0.9, type = c("perc", "bca"), index = j, L = n * L[, j])
    list(percentile = ci$percent[4:5], bca = ci$bca[4:5])
  })
  list(link = link, t0 = t0, t = t, covariance = cov(t), acceleration = apply(L, 2, function(l) sum(l^3) / (6 * sum(l^2)^1.5)),
    intervals = intervals)
})
writeLines(toJSON(list(counts = counts, cases = cases), digits = NA, auto_unbox = TRUE), "tests/reference/bootstrap.json")
