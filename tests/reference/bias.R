# References for tests/test_bias_reduction.py and tests/test_profile.py, from R. Run in tests/reference: Rscript bias.R
#
# Bias-reduced fits are brglm2's, at epsilon 1e-12. What brglm2 does not have (quasi families, the negative binomial, power
# links) is solved here from the published adjusted scores, with numerical derivatives of the link and variance functions.
# Profile intervals are roots, by uniroot, of refits with an offset, at epsilon 1e-14; penalised ones of the penalised
# likelihood of logistf (Heinze and Schemper 2002), the penalty that of the whole design.

suppressPackageStartupMessages({library(MASS); library(brglm2); library(numDeriv)})
RNGkind("Mersenne-Twister", "Inversion", "Rejection")
for (made in parse("generate.R")) { # its writers of JSON
  if (identical(made[[1]], as.name("<-")) && as.character(made[[2]])[1] %in% c("number", "scalar", "json", "each")) eval(made)
}

set.seed(1963)
n <- 24
x <- round(runif(n, -1, 1) * 64) / 64
f <- rep(c(0, 1, 1), n / 3)
X <- cbind(one = 1, x, f)
XA <- cbind(one = 1, x, twice = 1 - 2 * x, f) # the third column is aliased
w <- sample(1:4, n, TRUE)
o <- round(runif(n, -0.3, 0.3) * 64) / 64
eta <- 0.3 + 0.6 * x - 0.4 * f + o
y <- list(
  binomial = rbinom(n, w, plogis(2 * eta)) / w, gaussian = round(exp(eta) + rnorm(n) / 3, 4),
  poisson = rpois(n, exp(eta)), Gamma = round(rgamma(n, 3, scale = exp(eta) / 3), 4) + 0.01,
  inverse.gaussian = round(exp(eta) * rgamma(n, 8) / 8, 4) + 0.01, negative_binomial = rnegbin(n, exp(eta), 2),
  quasipoisson = rpois(n, exp(eta)) * 2
)

# ---- bias reduction -------------------------------------------------------------------------------------------------

types <- c(mean = "AS_mean", median = "AS_median", jeffreys = "MPL_Jeffreys")

by_brglm2 <- function(X, y, family, w, o, kind) {
  control <- list(epsilon = 1e-12, maxit = 10000, type = types[[kind]], transformation = "identity")
  fit <- suppressWarnings(brglmFit(X, y, weights = w, offset = o, family = family, control = control, intercept = FALSE))
  b <- fit$coefficients
  kept <- which(!is.na(b))
  phi <- if (family$family %in% c("binomial", "poisson")) 1 else fit$dispersion
  list(b = b, phi = phi, grad = max(abs(fit$grad[kept])))
}

# The published adjusted scores, for families whose dispersion is 1 or Pearson's.
by_hand <- function(X, y, family, w, o, kind, known) {
  kept <- qr(X)$pivot[seq_len(qr(X)$rank)]
  kept <- sort(kept)
  Z <- X[, kept, drop = FALSE]
  parts <- function(b) {
    eta <- drop(Z %*% b) + o
    mu <- family$linkinv(eta)
    d1 <- family$mu.eta(eta)
    d2 <- diag(jacobian(family$mu.eta, eta))
    v <- family$variance(mu)
    v1 <- diag(jacobian(family$variance, mu))
    W <- w * d1^2 / v
    inverse <- solve(crossprod(Z, W * Z))
    phi <- if (known) 1 else sum(w * (y - mu)^2 / v) / (sum(w > 0) - ncol(Z))
    hat <- W * rowSums((Z %*% inverse) * Z)
    A <- switch(kind,
      mean = , median = crossprod(Z, hat * d2 / d1 / 2),
      jeffreys = crossprod(Z, hat * (2 * d2 / d1 - v1 * d1 / v) / 2)
    )
    if (kind == "median") {
      m <- sapply(seq_len(ncol(Z)), function(j) {
        V <- tcrossprod(inverse[j, ]) / inverse[j, j]
        hats <- rowSums((Z %*% V) * Z) * W
        sum(inverse[j, ] * crossprod(Z, hats * (d1 * v1 / (6 * v) - d2 / d1 / 2)))
      })
      A <- A + solve(inverse, m)
    }
    list(step = drop(inverse %*% (crossprod(Z, W * (y - mu) / d1) + phi * A)), phi = phi)
  }
  b <- suppressWarnings(glm.fit(Z, y, weights = w, offset = o, family = family, control = list(epsilon = 1e-12))$coefficients)
  for (i in 1:2000) {
    now <- parts(b)
    b <- b + 0.7 * now$step
    if (max(abs(now$step)) < 1e-13) break
  }
  all <- rep(NA, ncol(X))
  all[kept] <- b
  list(b = all, phi = parts(b)$phi, grad = max(abs(now$step)))
}

models <- list(
  list("binomial", "logit", binomial()), list("binomial", "probit", binomial("probit")),
  list("binomial", "cloglog", binomial("cloglog")), list("binomial", "cauchit", binomial("cauchit")),
  list("poisson", "log", poisson()), list("poisson", "sqrt", poisson("sqrt")),
  list("gaussian", "identity", gaussian()), list("gaussian", "log", gaussian("log")),
  list("gamma", "log", Gamma("log")), list("gamma", "inverse", Gamma()),
  list("inverse_gaussian", "log", inverse.gaussian("log")),
  list("quasipoisson", "log", quasipoisson()), list("negative_binomial", "log", negative.binomial(2))
)

reduced <- list()
for (model in models) for (kind in names(types)) for (case in c("plain", "rich")) {
  family <- model[[3]]
  response <- y[[switch(model[[1]], gamma = "Gamma", inverse_gaussian = "inverse.gaussian", model[[1]])]]
  rich <- case == "rich" # weights, an offset and an aliased column
  weights <- if (rich || model[[1]] == "binomial") w else rep(1, n)
  offset <- if (rich && !(model[[2]] %in% c("inverse", "sqrt"))) o else rep(0, n)
  design <- if (rich) XA else X
  hand <- model[[1]] %in% c("quasipoisson", "negative_binomial")
  fit <- if (hand) by_hand(design, response, family, weights, offset, kind, model[[1]] != "quasipoisson") else
    by_brglm2(design, response, family, weights, offset, kind)
  if (fit$grad > 1e-8) cat("not at its root:", model[[1]], model[[2]], kind, case, fit$grad, "\n")
  kept <- which(!is.na(fit$b))
  at <- drop(design[, kept] %*% fit$b[kept]) + offset
  mu <- family$linkinv(at)
  W <- weights * family$mu.eta(at)^2 / family$variance(mu)
  errors <- rep(NA, ncol(design))
  errors[kept] <- sqrt(diag(solve(crossprod(design[, kept], W * design[, kept]))) * fit$phi)
  reduced <- c(reduced, list(list(
    family = scalar(model[[1]]), link = scalar(model[[2]]), kind = scalar(kind), case = scalar(case),
    coefficients = fit$b, errors = errors, dispersion = scalar(fit$phi),
    deviance = scalar(sum(family$dev.resids(response, mu, weights)))
  )))
}

# ---- contraceptive use by district ----------------------------------------------------------------------------------

women <- read.csv("../../jaxglm/datasets/contraception.csv", stringsAsFactors = TRUE)
M <- model.matrix(~ age + I(age^2) + urban + livch, women)
districts <- lapply(sort(unique(women$district)), function(k) {
  here <- women$district == k
  x <- M[here, , drop = FALSE]
  first <- glm.fit(x, as.numeric(women$use[here] == "Y"), family = binomial(), control = list(maxit = 1))
  kept <- !is.na(first$coefficients)
  fit <- by_brglm2(x[, kept, drop = FALSE], as.numeric(women$use[here] == "Y"), binomial(), rep(1, sum(here)), rep(0, sum(here)), "mean")
  b <- rep(NA, ncol(M))
  b[kept] <- fit$b
  list(district = scalar(k), grad = fit$grad, coefficients = b)
})
stopifnot(max(sapply(districts, function(d) d$grad)) < 1e-8)
districts <- lapply(districts, function(d) d[c("district", "coefficients")])

# ---- profiles of the likelihood -------------------------------------------------------------------------------------

tight <- list(epsilon = 1e-14, maxit = 200)
refit <- function(X, y, family, w, o, start = NULL) {
  if (ncol(X) == 0) return(sum(family$dev.resids(y, family$linkinv(o), w)))
  fit <- suppressWarnings(glm.fit(X, y, weights = w, offset = o, family = family, control = tight, start = start))
  suppressWarnings(glm.fit(X, y, weights = w, offset = o, family = family, control = tight, start = fit$coefficients))$deviance
}
profile_root <- function(X, j, y, family, w, o, best, level, from, width, start = NULL) { # width: signed, a first guess of the distance
  over <- function(b) (refit(X[, -j, drop = FALSE], y, family, w, o + X[, j] * b, start) - best) - level
  far <- 1
  while (over(from + far * width) < 0) far <- 1.5 * far
  uniroot(over, sort(c(from, from + far * width)), tol = 1e-13, maxiter = 1000)$root
}
profile_intervals <- function(X, y, family, w, o, level = 0.95) {
  keep <- sort(qr(X)$pivot[seq_len(qr(X)$rank)])
  Z <- X[, keep, drop = FALSE]
  fit <- suppressWarnings(glm.fit(Z, y, weights = w, offset = o, family = family, control = tight))
  b <- fit$coefficients
  known <- family$family %in% c("binomial", "poisson") || grepl("Negative", family$family)
  df <- length(y) - ncol(Z)
  phi <- if (known) 1 else sum(fit$weights * fit$residuals^2) / df
  q <- if (known) qnorm((1 + level) / 2) else qt((1 + level) / 2, df)
  best <- refit(Z, y, family, w, o)
  se <- sqrt(diag(solve(crossprod(Z, fit$weights * Z))) * phi)
  ends <- matrix(NA, ncol(X), 2)
  tests <- rep(NA, ncol(X))
  for (j in seq_along(keep)) {
    for (side in 1:2) ends[keep[j], side] <- profile_root(Z, j, y, family, w, o, best, q^2 * phi, b[j], c(-1, 1)[side] * q * se[j])
    tests[keep[j]] <- (refit(Z[, -j, drop = FALSE], y, family, w, o) - best) / phi
  }
  list(ends = ends, tests = tests)
}

profiles <- list()
for (model in models) {
  if (model[[2]] %in% c("cauchit", "sqrt", "inverse") || model[[1]] == "inverse_gaussian") next
  response <- y[[switch(model[[1]], gamma = "Gamma", model[[1]])]]
  for (case in c("plain", "rich")) {
    rich <- case == "rich"
    found <- profile_intervals(if (rich) XA else X, response, model[[3]], if (rich || model[[1]] == "binomial") w else rep(1, n), if (rich) o else rep(0, n))
    profiles <- c(profiles, list(list(
      family = scalar(model[[1]]), link = scalar(model[[2]]), case = scalar(case), ends = found$ends, tests = found$tests
    )))
  }
}

# A separated fit: all of f = 1 succeed, so that its coefficient is +Inf. The others are those of the rows with f = 0; the
# finite end of f's interval is a root of refits of all rows. And the same by Poisson, where they have no events.
apart <- list()
for (name in c("binomial", "poisson")) {
  family <- if (name == "binomial") binomial() else poisson()
  response <- if (name == "binomial") ifelse(f == 1, 1, rep(c(0, 1, 1, 0, 1), length.out = n)) else ifelse(f == 1, 0, y$poisson)
  calm <- f == 0
  inner <- profile_intervals(X[calm, 1:2], response[calm], family, rep(1, sum(calm)), rep(0, sum(calm)))
  best <- refit(X[calm, 1:2], response[calm], family, rep(1, sum(calm)), rep(0, sum(calm)))
  start <- glm.fit(X[calm, 1:2], response[calm], family = family)$coefficients
  side <- if (name == "binomial") -1 else 1
  end <- profile_root(X, 3, response, family, rep(1, n), rep(0, n), best, qchisq(0.95, 1), -side * 9, side * 3, start)
  test <- refit(X[, 1:2], response, family, rep(1, n), rep(0, n)) - best
  apart <- c(apart, list(list(family = scalar(name), y = response, ends = inner$ends, end = scalar(end), test = scalar(test))))
}

# ---- profiles of the penalised likelihood ---------------------------------------------------------------------------

penalised <- function(X, y, w, o, held = NULL, value = 0) { # its largest value, by scoring with halving
  free <- setdiff(seq_len(ncol(X)), held)
  b <- rep(0, ncol(X))
  if (length(held)) b[held] <- value
  worth <- function(b) {
    p <- plogis(drop(X %*% b) + o)
    W <- w * p * (1 - p)
    sum(w * (y * plogis(drop(X %*% b) + o, log.p = TRUE) + (1 - y) * plogis(-drop(X %*% b) - o, log.p = TRUE))) +
      0.5 * as.numeric(determinant(crossprod(X, W * X))$modulus)
  }
  now <- worth(b)
  for (i in 1:1000) {
    p <- plogis(drop(X %*% b) + o)
    W <- w * p * (1 - p)
    hat <- W * rowSums((X %*% solve(crossprod(X, W * X))) * X)
    score <- crossprod(X, w * (y - p) + hat * (0.5 - p))[free]
    step <- solve(crossprod(X[, free, drop = FALSE], W * X[, free, drop = FALSE]), score)
    scale <- 1
    repeat {
      trial <- b
      trial[free] <- b[free] + scale * step
      if (worth(trial) >= now - 1e-12 || scale < 1e-8) break
      scale <- scale / 2
    }
    b <- trial
    now <- worth(b)
    if (max(abs(step)) < 1e-12) break
  }
  list(b = b, worth = now)
}
firth <- function(X, y, w, o) {
  best <- penalised(X, y, w, o)
  ends <- matrix(NA, ncol(X), 2)
  tests <- rep(NA, ncol(X))
  for (j in seq_len(ncol(X))) {
    over <- function(b) 2 * (best$worth - penalised(X, y, w, o, j, b)$worth) - qchisq(0.95, 1)
    for (side in 1:2) {
      far <- 1
      while (over(best$b[j] + c(-1, 1)[side] * far) < 0) far <- 1.5 * far
      ends[j, side] <- uniroot(over, sort(c(best$b[j], best$b[j] + c(-1, 1)[side] * far)), tol = 1e-12)$root
    }
    tests[j] <- 2 * (best$worth - penalised(X, y, w, o, j, 0)$worth)
  }
  list(coefficients = best$b, ends = ends, tests = tests)
}
jeffreys <- list(
  c(case = list(scalar("plain")), firth(X, y$binomial, w, rep(0, n))),
  c(case = list(scalar("offset")), firth(X, y$binomial, w, o)),
  c(case = list(scalar("separated")), firth(X, apart[[1]]$y, rep(1, n), rep(0, n)))
)

rows <- c(list(X = X, XA = XA, weights = w, offset = o), list(y = y))
writeLines(json(list(rows = rows, reduced = reduced, districts = districts, profiles = profiles, apart = apart, jeffreys = jeffreys)), "bias.json")
