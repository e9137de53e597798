# References for tests/test_power.py, from R. Run in tests/reference: Rscript power.R
#
# As tweedie.profile does it: for each power a fit by statmod's tweedie family, the dispersion that is most likely for it, and
# the power at which that likelihood is largest. Densities are mgcv's ldTweedie, the series of Dunn and Smyth (2005), with
# dispersions divided by prior weights. Maxima are searched by optimize, then as zeros of ldTweedie's own derivatives by
# dispersion, and of difference quotients of the profile by power. mgcv is one of R's recommended packages.

suppressPackageStartupMessages({library(statmod); library(mgcv)})
RNGkind("Mersenne-Twister", "Inversion", "Rejection")
for (made in parse("generate.R")) { # its writers of JSON
  if (identical(made[[1]], as.name("<-")) && as.character(made[[2]])[1] %in% c("number", "scalar", "json", "each")) eval(made)
}

fit_at <- function(d, p) {
  family <- tweedie(var.power = p, link.power = d$link)
  glm.fit(d$X, d$y, weights = d$w, offset = d$o, family = family, mustart = pmax(d$y, 0.1 * mean(d$y)),
          control = glm.control(epsilon = 1e-15, maxit = 200))
}
at_power <- function(d, p) { # the profile: dispersion, log-likelihood, coefficients
  fit <- fit_at(d, p)
  mu <- fit$fitted.values
  density <- function(s) ldTweedie(d$y, mu = mu, p = p, phi = exp(s) / d$w)
  value <- function(s) sum(density(s)[, 1])
  slope <- function(s) sum(density(s)[, 2] * exp(s) / d$w) # by log phi
  s <- log(sum(d$w * (d$y - mu)^2 / mu^p) / fit$df.residual)
  s <- optimize(value, s + c(-1.5, 1.5), maximum = TRUE, tol = 1e-7)$maximum
  s <- uniroot(slope, s + c(-0.01, 0.01), tol = 1e-13, extendInt = "yes")$root
  list(phi = exp(s), value = value(s), coefficients = fit$coefficients)
}
best <- function(d) {
  value <- function(p) at_power(d, p)$value
  p <- optimize(value, c(1.05, 1.95), maximum = TRUE, tol = 1e-5)$maximum
  h <- 2e-3
  slope <- function(p) {
    v <- sapply(c(-3, -2, -1, 1, 2, 3) * h + p, value)
    sum(c(-1, 9, -45, 45, -9, 1) * v) / (60 * h)
  }
  p <- uniroot(slope, p + c(-2e-2, 2e-2), tol = 1e-11)$root
  found <- at_power(d, p)
  curvature <- (8 * (slope(p + h) - slope(p - h)) - slope(p + 2 * h) + slope(p - 2 * h)) / (12 * h)
  c(list(power = p, power_error = 1 / sqrt(-curvature)), found)
}

draw <- function(mu, phi, p) {
  n <- rpois(length(mu), mu^(2 - p) / (phi * (2 - p)))
  ifelse(n > 0, rgamma(length(mu), pmax(n, 1) * (2 - p) / (p - 1), scale = phi * (p - 1) * mu^(p - 1)), 0)
}
set.seed(20260501)
case <- function(name, n, p, phi, b, link = 0, weighted = FALSE, exposed = FALSE) {
  x <- round(runif(n, -1, 1), 3)
  X <- cbind(1, x, rep(0:1, length.out = n))
  o <- if (exposed) round(runif(n, -0.5, 0.5), 2) else rep(0, n)
  w <- if (weighted) round(runif(n, 0.5, 3), 1) else rep(1, n)
  eta <- drop(X %*% b) + o
  mu <- if (link == 0) exp(eta) else eta^(1 / link)
  y <- signif(draw(mu, phi / w, p), 7)
  d <- list(X = X, y = y, w = w, o = o, link = link)
  made <- best(d)
  c(list(case = name, link = link, X = unname(X), y = y, weights = w, offset = o), made)
}
cases <- list(
  case("plain", 80, 1.5, 1, c(0.5, 0.6, -0.3)),
  case("many_zeros", 120, 1.3, 2, c(-0.2, 0.5, 0.3)),
  case("weights_and_offset", 100, 1.6, 1.2, c(1, -0.5, 0.4), weighted = TRUE, exposed = TRUE),
  case("near_gamma", 150, 1.8, 3, c(0.2, 0.5, 0.1)),
  case("near_poisson", 150, 1.15, 1.5, c(1, 0.4, -0.4)),
  case("identity", 90, 1.5, 0.6, c(3, 1, 0.5), link = 1)
)
for (made in cases) cat(made$case, made$power, made$power_error, made$phi, made$value, "\n")
written <- function(made) { # matrices by rows
  made$X <- lapply(seq_len(nrow(made$X)), function(i) made$X[i, ])
  made$coefficients <- unname(made$coefficients)
  made
}
writeLines(jsonlite::toJSON(list(cases = lapply(cases, written)), auto_unbox = TRUE, digits = NA), "power.json")
