# References for tests/test_theta.py, from R. Run in tests/reference: Rscript theta.R
#
# Maximum likelihood starts from MASS's glm.nb, whose own tolerances leave errors of 1e-6, and goes on with theta.ml's score
# and information and with Fisher scoring in turn until nothing but rounding changes. Cox and Reid's adjusted profile
# likelihood is computed as it is written, log-likelihood minus half log det X'WX at the coefficients that are best for the
# theta; its maximum in log theta is the zero of a difference quotient of the sixth order. Rows of weight zero are dropped.

suppressPackageStartupMessages(library(MASS))
RNGkind("Mersenne-Twister", "Inversion", "Rejection")
for (made in parse("generate.R")) { # its writers of JSON
  if (identical(made[[1]], as.name("<-")) && as.character(made[[2]])[1] %in% c("number", "scalar", "json", "each")) eval(made)
}

log_likelihood <- function(theta, mu, y, w) { # as glm.nb's, the Poisson limit included
  if (is.infinite(theta)) return(sum(w * dpois(y, mu, log = TRUE)))
  sum(w * dnbinom(y, size = theta, mu = mu, log = TRUE))
}
scoring <- function(X, y, w, o, link, theta, b) { # Fisher scoring to the last digits
  go <- function(b) {
    eta <- drop(X %*% b) + o
    mu <- link$linkinv(eta)
    slope <- link$mu.eta(eta)
    v <- mu + mu^2 / theta
    W <- w * slope^2 / v
    list(b = b, eta = eta, mu = mu, W = W, step = drop(qr.coef(qr(sqrt(W) * X), sqrt(W) * (y - mu) / slope)))
  }
  at <- go(b)
  for (i in 1:400) {
    at <- go(at$b + at$step)
    if (max(abs(at$step)) < 1e-14 * max(1, abs(at$b))) break
  }
  stopifnot(max(abs(at$step)) < 1e-11 * max(1, abs(at$b)))
  at
}
score <- function(theta, mu, y, w) {
  sum(w * (digamma(theta + y) - digamma(theta) + log(theta) + 1 - log(theta + mu) - (y + theta) / (mu + theta)))
}
information <- function(theta, mu, y, w) {
  sum(w * (-trigamma(theta + y) + trigamma(theta) - 1 / theta + 2 / (mu + theta) - (y + theta) / (mu + theta)^2))
}
adjusted <- function(X, y, w, o, link, theta, b) {
  at <- scoring(X, y, w, o, link, theta, b)
  log_likelihood(theta, at$mu, y, w) - 0.5 * as.numeric(determinant(crossprod(sqrt(at$W) * X))$modulus)
}

best_ml <- function(X, y, w, o, link, fit) {
  theta <- fit$theta
  b <- coef(fit)
  for (i in 1:300) {
    at <- scoring(X, y, w, o, link, theta, b)
    step <- score(theta, at$mu, y, w) / information(theta, at$mu, y, w)
    theta <- theta + step
    b <- at$b
    if (abs(step) < 1e-14 * theta) break
  }
  stopifnot(abs(step) < 1e-11 * theta, abs(theta / fit$theta - 1) < 1e-2)
  theta
}
best_cr <- function(X, y, w, o, link, theta, b) {
  value <- function(l) adjusted(X, y, w, o, link, exp(l), b)
  slope <- function(l, h = 0.01) {
    near <- vapply(c(-3, -2, -1, 1, 2, 3) * h, function(e) value(l + e), 0)
    sum(c(-1, 9, -45, 45, -9, 1) * near) / (60 * h)
  }
  exp(uniroot(slope, log(theta) + c(-1.5, 0.5), tol = 1e-13)$root)
}

report <- function(X, y, w, o, link, theta, b, keep) {
  at <- scoring(X, y, w, o, link, theta, b)
  C <- chol2inv(qr.R(qr(sqrt(at$W) * X)))
  null <- scoring(matrix(1, length(y)), y, w, o, link, theta, link$linkfun(weighted.mean(y, w)) - mean(o))
  deviance <- function(mu) sum(negative.binomial(theta)$dev.resids(y, mu, w))
  spread <- function(values) replace(rep(NA_real_, length(keep)), keep, values)
  loglik <- log_likelihood(theta, at$mu, y, w)
  each(list(
    theta = theta, theta_error = 1 / sqrt(information(theta, at$mu, y, w)), coefficients = spread(at$b),
    errors = spread(sqrt(diag(C))), log_likelihood = loglik, aic = -2 * loglik + 2 * (ncol(X) + 1),
    deviance = deviance(at$mu), null_deviance = deviance(null$mu)
  ))
}

make <- function(name, link, n, theta, b, weighted = FALSE, with_offset = FALSE, aliased = FALSE) {
  x <- round(runif(n, -1, 1) * 64) / 64
  f <- rep(0:1, length.out = n)
  X <- if (aliased) cbind(1, x, 1 - 2 * x, f) else cbind(1, x, f)
  w <- if (weighted) sample(c(0, 1, 2, 3, 1.5), n, TRUE) else rep(1, n)
  o <- if (with_offset) round(runif(n, -0.3, 0.3), 2) else rep(0, n)
  functions <- make.link(link)
  mu <- functions$linkinv(drop(cbind(1, x, f) %*% b) + o)
  y <- rnegbin(n, mu, theta)
  keep <- if (aliased) c(TRUE, TRUE, FALSE, TRUE) else rep(TRUE, 3)
  there <- w > 0
  Xk <- X[there, keep]
  rows <- list(y = y[there], w = w[there], o = o[there])
  fit <- suppressWarnings(do.call(glm.nb, list(
    rows$y ~ 0 + Xk + offset(rows$o), weights = rows$w, link = as.name(link), start = b,
    control = glm.control(1e-12, 200)
  )))
  ml <- best_ml(Xk, rows$y, rows$w, rows$o, functions, fit)
  cr <- best_cr(Xk, rows$y, rows$w, rows$o, functions, ml, coef(fit))
  small <- Xk[, -ncol(Xk)] # without f, with a theta of its own, as MASS's anova.negbin compares models
  fit_small <- suppressWarnings(do.call(glm.nb, list(
    rows$y ~ 0 + small + offset(rows$o), weights = rows$w, link = as.name(link), start = b[-length(b)],
    control = glm.control(1e-12, 200)
  )))
  least <- best_ml(small, rows$y, rows$w, rows$o, functions, fit_small)
  at <- scoring(small, rows$y, rows$w, rows$o, functions, least, coef(fit_small))
  smaller <- each(list(theta = least, log_likelihood = log_likelihood(least, at$mu, rows$y, rows$w)))
  list(
    case = scalar(name), link = scalar(link), X = unname(X), y = y, weights = if (weighted) w, offset = if (with_offset) o,
    ml = report(Xk, rows$y, rows$w, rows$o, functions, ml, coef(fit), keep),
    cr = report(Xk, rows$y, rows$w, rows$o, functions, cr, coef(fit), keep), smaller = smaller
  )
}

set.seed(1711)
cases <- list(
  make("plain", "log", 48, 2.5, c(1.2, 0.5, -0.4)),
  make("weights", "log", 48, 1.2, c(2.2, 0.5, -0.4), weighted = TRUE),
  make("offset", "log", 48, 4, c(3.2, 0.5, -0.4), with_offset = TRUE),
  make("aliased", "log", 48, 0.7, c(1.5, 0.5, -0.4), weighted = TRUE, with_offset = TRUE, aliased = TRUE),
  make("large", "log", 48, 90, c(6.5, 0.5, -0.4)),
  make("low", "log", 48, 0.4, c(-0.2, 0.3, 0.5)),
  make("sqrt", "sqrt", 48, 3, c(2.5, 0.5, -0.4), weighted = TRUE, with_offset = TRUE),
  make("identity", "identity", 48, 3, c(8, 2, 1.5), weighted = TRUE)
)
writeLines(json(list(cases = cases)), "theta.json")
