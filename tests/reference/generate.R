# References for tests/test_reference.py, from R. Run in tests/reference: Rscript generate.R (see README.md).
#
# glm.fit decides which columns are aliased, at its default epsilon of 1e-8; everything else is computed at coefficients
# that Fisher scoring has polished until the steps are nothing but rounding. Rows of weight zero are dropped before.

suppressPackageStartupMessages({
  library(MASS)
  library(statmod)
  library(mlmRev)
})
RNGkind("Mersenne-Twister", "Inversion", "Rejection")

# ---- JSON: the shortest of 15 or 17 digits that gives the same number back ---------------------------------------------

number <- function(x) {
  text <- rep("null", length(x))
  known <- which(is.finite(x))
  short <- sprintf("%.15g", x[known])
  text[known] <- ifelse(as.numeric(short) == x[known], short, sprintf("%.17g", x[known]))
  stopifnot(as.numeric(text[known]) == x[known])
  text
}
scalar <- function(x) structure(x, class = "scalar")
json <- function(x) {
  if (is.null(x)) return("null")
  if (is.matrix(x)) return(paste0("[", paste(apply(x, 1, json), collapse = ",\n"), "]"))
  if (is.list(x) && is.null(names(x))) return(paste0("[\n", paste(vapply(x, json, ""), collapse = ",\n"), "\n]"))
  if (is.list(x)) return(paste0("{", paste(sprintf('"%s":%s', names(x), vapply(x, json, "")), collapse = ","), "}"))
  one <- inherits(x, "scalar")
  x <- unname(unclass(x))
  text <- if (is.character(x)) sprintf('"%s"', x) else if (is.logical(x)) ifelse(is.na(x), "null", tolower(x)) else number(x)
  if (one) text else paste0("[", paste(text, collapse = ","), "]")
}
each <- function(x) lapply(x, function(value) if (length(value) == 1 && !is.list(value)) scalar(value) else value)

# ---- families and links ------------------------------------------------------------------------------------------------

loglog <- structure(
  list(
    linkfun = function(mu) -log(-log(mu)),
    linkinv = function(eta) exp(-exp(-eta)),
    mu.eta = function(eta) exp(-eta - exp(-eta)),
    valideta = function(eta) TRUE,
    name = "loglog"
  ),
  class = "link-glm"
)

# R's own power() takes every negative exponent for the log link.
power_link <- function(k) {
  structure(
    list(
      linkfun = function(mu) mu^k,
      linkinv = function(eta) eta^(1 / k),
      mu.eta = function(eta) eta^(1 / k - 1) / k,
      valideta = function(eta) all(eta > 0),
      name = "power"
    ),
    class = "link-glm"
  )
}

link_of <- function(name, exponent) {
  switch(name,
    loglog = loglog,
    power = if (exponent > 0) power(exponent) else power_link(exponent),
    inverse_squared = make.link("1/mu^2"),
    make.link(name)
  )
}

family_of <- function(name, parameter, link, exponent) {
  g <- link_of(link, exponent)
  if (name == "tweedie" || identical(parameter, "mu^1.7")) {
    var <- if (name == "tweedie") parameter else 1.7
    return(statmod::tweedie(var.power = var, link.power = switch(link, log = 0, identity = 1, exponent)))
  }
  switch(name,
    gaussian = gaussian(g),
    binomial = binomial(g),
    poisson = poisson(g),
    gamma = Gamma(g),
    inverse_gaussian = inverse.gaussian(g),
    negative_binomial = MASS::negative.binomial(theta = parameter, link = link),
    quasi = eval(bquote(quasi(link = g, variance = .(parameter)))),
    quasibinomial = quasibinomial(g),
    quasipoisson = quasipoisson(g)
  )
}

FIXED <- c("binomial", "poisson", "negative_binomial") # dispersion 1
COUNTED <- c("gaussian", "gamma", "inverse_gaussian") # R's AIC counts their dispersion

# ---- fits --------------------------------------------------------------------------------------------------------------

rows_at <- function(X, y, w, offset, family, b) {
  eta <- drop(X %*% b) + offset
  mu <- family$linkinv(eta)
  slope <- family$mu.eta(eta)
  V <- family$variance(mu)
  list(eta = eta, mu = mu, V = V, W = w * slope^2 / V, score = w * (y - mu) * slope / V)
}

# Fisher scoring until the steps, relative to max(|b|, error), stop getting shorter. X must be of full rank.
polish <- function(X, y, w, offset, family, b) {
  best <- list(step = Inf, b = b)
  stale <- 0
  for (i in 1:500) {
    row <- rows_at(X, y, w, offset, family, b)
    if (!all(is.finite(row$W), is.finite(row$score), row$W > 0)) break
    Q <- qr(sqrt(row$W) * X, tol = 1e-14)
    d <- qr.coef(Q, row$score / sqrt(row$W))
    root <- sqrt(diag(chol2inv(qr.R(Q)))[order(Q$pivot)])
    step <- max(abs(d) / pmax(abs(b), root))
    if (!is.finite(step)) break
    if (step < best$step) best <- list(step = step, b = b, root = root) else stale <- stale + 1
    if (stale >= 5) break
    b <- b + d
  }
  best
}

fit <- function(X, y, w, offset, name, family, start) {
  tight <- list(epsilon = 1e-14, maxit = 200, trace = FALSE)
  start[is.na(start)] <- 0
  quiet <- function(...) suppressWarnings(glm.fit(..., intercept = TRUE))
  first <- quiet(X, y, w, offset = offset, family = family, start = start)
  keep <- !is.na(first$coefficients)
  kept <- X[, keep, drop = FALSE]
  second <- quiet(kept, y, w, offset = offset, family = family, start = first$coefficients[keep], control = tight)
  best <- polish(kept, y, w, offset, family, second$coefficients)
  level <- family$linkfun(sum(w * y) / sum(w)) - sum(w * offset) / sum(w)
  null <- polish(X[, 1, drop = FALSE], y, w, offset, family, level)
  if (best$step > 1e-11 || null$step > 1e-11) return(NULL)

  row <- rows_at(kept, y, w, offset, family, best$b)
  mu0 <- rows_at(X[, 1, drop = FALSE], y, w, offset, family, null$b)$mu
  n <- length(y)
  rank <- sum(keep)
  dispersion <- if (name %in% FIXED) 1 else sum(w * (y - row$mu)^2 / row$V) / (n - rank)
  deviance <- sum(family$dev.resids(y, row$mu, w))
  aic <- family$aic(y, rep(1, n), row$mu, w, deviance) + 2 * rank # NA for quasi and tweedie
  coefficients <- errors <- rep(NA_real_, ncol(X))
  coefficients[keep] <- best$b
  errors[keep] <- best$root * sqrt(dispersion)
  list(
    coefficients = coefficients, errors = errors, deviance = deviance,
    null_deviance = sum(family$dev.resids(y, mu0, w)), dispersion = dispersion, aic = as.numeric(aic),
    log_likelihood = as.numeric(rank + (name %in% COUNTED) - aic / 2), rank = rank, n_obs = n,
    df_residual = n - rank, df_null = n - 1, relative_step = best$step
  )
}

# ---- data --------------------------------------------------------------------------------------------------------------

set.seed(20240)
N <- 60
x <- round(runif(N) * 64) / 64 # so that linear combinations are exact
f <- rep(0:1, N / 2)
zero <- c(7, 20, 33, 51) # rows of weight zero
junk <- ifelse(seq_len(N) %in% zero, 5, 1 - 2 * x) # a combination of 1 and x, but only on the rows that are there
designs <- list(
  plain = cbind(1, x, f),
  aliased = cbind(1, x, 1 - 2 * x, f),
  crossed = cbind(1, x, junk, f)
)

MEANS <- list( # what the means run through
  gaussian = c(1, 6), binomial = c(0.25, 0.75), poisson = c(2, 9), gamma = c(1, 5), inverse_gaussian = c(1, 4),
  negative_binomial = c(2, 9), tweedie = c(1, 5)
)
LIKE <- c(
  constant = "gaussian", mu = "poisson", "mu(1-mu)" = "binomial", "mu^2" = "gamma", "mu^3" = "inverse_gaussian",
  "mu^1.7" = "tweedie", quasibinomial = "binomial", quasipoisson = "poisson"
)

compound <- function(mu, p, phi = 0.6) { # Tweedie, 1 < p < 2
  count <- rpois(length(mu), mu^(2 - p) / (phi * (2 - p)))
  ifelse(count == 0, 0, rgamma(length(mu), pmax(count, 1) * (2 - p) / (p - 1), scale = phi * (p - 1) * mu^(p - 1)))
}

simulate <- function(name, like, parameter, mu, trials) {
  n <- length(mu)
  exact <- name == like # a likelihood family: responses from it
  y <- switch(like,
    gaussian = pmax(mu + rnorm(n, sd = 0.4), 0.05),
    binomial = if (exact) rbinom(n, trials, mu) / pmax(trials, 1) else round(rbeta(n, 5 * mu, 5 * (1 - mu)), 3),
    poisson = if (exact) rpois(n, mu) else rnegbin(n, mu, theta = 4),
    gamma = rgamma(n, 6, scale = mu / 6),
    inverse_gaussian = rinvgauss(n, mu, dispersion = 0.05),
    negative_binomial = rnegbin(n, mu, theta = parameter),
    tweedie = compound(mu, if (name == "tweedie") parameter else 1.7)
  )
  if (exact && like == "binomial") y else signif(y, 6)
}

make <- function(name, parameter, link, exponent, case) {
  family <- family_of(name, parameter, link, exponent)
  like <- if (name == "quasi") LIKE[[parameter]] else if (name %in% names(LIKE)) LIKE[[name]] else name
  g <- link_of(link, exponent)
  ends <- g$linkfun(MEANS[[like]])
  if (link == "log" && like == "binomial") ends <- log(c(0.2, 0.65))
  span <- ends[2] - ends[1]
  X <- designs[[switch(case, aliased = "aliased", crossed = "crossed", "plain")]]
  has <- function(what) case %in% c(what, "crossed")
  true <- c(ends[1] + 0.1 * span, 0.5 * span, 0.25 * span)
  start <- if (ncol(X) == 4) c(true[1:2], 0, true[3]) else true
  for (attempt in 1:50) {
    offset <- if (has("offset")) signif(span * runif(N, -0.08, 0.14), 4) else NULL
    weights <- NULL
    if (has("weights")) {
      weights <- if (name == "binomial") sample(1:12, N, TRUE) else sample(2:24, N, TRUE) / 8
      weights[zero] <- 0
    }
    w <- if (is.null(weights)) rep(1, N) else weights
    known <- if (is.null(offset)) rep(0, N) else offset
    y <- simulate(name, like, parameter, g$linkinv(drop(designs$plain %*% true) + known), w)
    on <- w > 0
    found <- try(fit(X[on, ], y[on], w[on], known[on], name, family, start), TRUE)
    if (is.list(found)) break
  }
  if (!is.list(found)) stop(paste("no fit for", name, link, case))
  if (attempt > 1) message(paste(name, link, case, "- data sets tried:", attempt))
  setup <- list(family = name, parameter = parameter, link = link, exponent = exponent, case = case)
  each(c(setup, list(y = y, weights = weights, offset = offset), found))
}

unit <- c("logit", "probit", "cauchit", "log", "cloglog", "loglog", "identity")
menu <- list(
  list("gaussian", NULL, c("identity", "log", "inverse", "power"), 0.5),
  list("binomial", NULL, unit),
  list("poisson", NULL, c("log", "identity", "sqrt", "power"), 1 / 3),
  list("gamma", NULL, c("inverse", "identity", "log", "power"), -0.5),
  list("inverse_gaussian", NULL, c("inverse_squared", "inverse", "identity", "log")),
  list("negative_binomial", 2.5, c("log", "sqrt", "identity")),
  list("tweedie", 1.5, c("log", "identity", "power"), 0.5),
  list("quasi", "constant", c("identity", "log", "power"), 0.5),
  list("quasi", "mu", c("log", "sqrt", "power"), 1 / 3),
  list("quasi", "mu(1-mu)", c("logit", "probit", "cauchit", "power"), 0.5),
  list("quasi", "mu^2", c("inverse", "log", "power"), -0.5),
  list("quasi", "mu^3", c("inverse_squared", "log", "power"), -1.5),
  list("quasi", "mu^1.7", c("log", "identity", "power"), 0.5),
  list("quasibinomial", NULL, unit),
  list("quasipoisson", NULL, c("log", "identity", "sqrt", "power"), 1 / 3)
)

cases <- list()
for (entry in menu) for (link in entry[[3]]) for (case in c("plain", "weights", "offset", "aliased", "crossed")) {
  exponent <- if (link == "power") entry[[4]] else NULL
  cases <- c(cases, list(make(entry[[1]], entry[[2]], link, exponent, case)))
}
cat(json(list(designs = designs, cases = cases)), "\n", sep = "", file = "families.json")

# ---- contraceptive use by district -------------------------------------------------------------------------------------

data(Contraception, package = "mlmRev")
stored <- Contraception[c("woman", "district", "use", "livch", "age", "urban")]
stored$age <- sprintf("%.4f", stored$age)
stopifnot(as.numeric(stored$age) == Contraception$age)
write.table(stored, "../../jaxglm/datasets/contraception.csv", sep = ",", quote = FALSE, row.names = FALSE)

X <- model.matrix(use ~ age + I(age^2) + urban + livch, Contraception)
use <- as.numeric(Contraception$use == "Y")
logistic <- function(on) {
  n <- sum(on)
  X <- X[on, , drop = FALSE]
  first <- suppressWarnings(glm.fit(X, use[on], family = binomial()))
  keep <- !is.na(first$coefficients) # at a tighter epsilon glm.fit would not see the aliased columns
  tight <- suppressWarnings(glm.fit(
    X[, keep, drop = FALSE], use[on], family = binomial(), start = first$coefficients[keep],
    control = list(epsilon = 1e-14, maxit = 200, trace = FALSE)
  ))
  result <- list(n_obs = n, rank = first$rank, separated = max(abs(tight$linear.predictors)) >= 15)
  if (result$separated) return(each(result))
  found <- fit(X, use[on], rep(1, n), rep(0, n), "binomial", binomial(), first$coefficients)
  stopifnot(is.list(found), found$rank == first$rank)
  shown <- c("coefficients", "errors", "deviance", "null_deviance", "dispersion", "aic", "log_likelihood", "relative_step")
  found <- found[shown]
  each(c(result, found))
}
districts <- lapply(levels(Contraception$district), function(d) {
  c(list(district = scalar(d)), logistic(Contraception$district == d))
})
whole <- logistic(rep(TRUE, nrow(X)))
cat(json(list(columns = colnames(X), whole = whole, districts = districts)), "\n", sep = "", file = "districts.json")

pick <- function(field) vapply(districts, function(d) as.numeric(d[[field]]), 0)
print(table(separated = pick("separated"), full_rank = pick("rank") == ncol(X)))
steps <- vapply(cases, function(case) as.numeric(case$relative_step), 0)
cat(length(cases), "cases; longest last step", max(steps), "\n")
info <- capture.output(sessionInfo())
writeLines(info[nzchar(info) & !grepl("^(BLAS|LAPACK|Matrix products)|/", info)], "session_info.txt")
