# References for tests/test_diagnostics.py, from R. Run in tests/reference: Rscript diagnostics.R
#
# Fits are run at epsilon 1e-14 and again from their own estimates. Influence measures are stats' own; a negative binomial
# has dispersion 1 here, as in glm.nb, and its studentized residuals are not divided by sigma. Quantile residuals are
# statmod's, with the uniform numbers that it drew. Score tests are written from the papers: Dean (1992), van den Broek (1995).

suppressPackageStartupMessages({library(MASS); library(statmod); library(jsonlite)})
RNGkind("Mersenne-Twister", "Inversion", "Rejection")
set.seed(20)
N <- 30
x <- round(runif(N, -1, 1), 3); z <- rep(c(0, 1), N / 2); double <- 2 * x - z
offset <- round(runif(N, -0.2, 0.2), 3); w <- sample(1:4, N, TRUE) / 2; w0 <- replace(w, c(4, 11), 0)
trials <- sample(3:9, N, TRUE); eta <- 0.3 + 0.7 * x - 0.4 * z
rows <- data.frame(x, z, double, offset, w, w0, trials, one = 1,
  normal = round(eta + rnorm(N) / 2, 4), positive = round(pmax(rgamma(N, 4, scale = exp(eta) / 4), 0.01), 4),
  far = round(exp(eta + 1 + rnorm(N) / 10), 4), count = rpois(N, 2 * exp(eta)), wide = rnegbin(N, 3 * exp(eta), theta = 1),
  success = rbinom(N, trials, plogis(eta)) / trials, single = as.numeric(runif(N) < plogis(eta)))
rows$inflated <- replace(rows$count, c(1, 5, 9, 13, 20, 25), 0)

polished <- function(y, family, weights, shift) {
  data <- data.frame(rows, .y = rows[[y]], .w = rows[[weights]], .o = shift * rows$offset)
  run <- function(...) suppressWarnings(glm(.y ~ x + z, family, data, weights = .w, offset = .o, ...))
  found <- run()
  for (i in 1:10) found <- run(start = coef(found), control = list(epsilon = 1e-14, maxit = 200))
  found
}

case <- function(name, y, family, ours, link, weights = "one", shift = 0, known = FALSE, drawn = TRUE) {
  f <- polished(y, family, weights, shift)
  phi <- if (known) 1 else summary(f)$dispersion
  i <- influence(f)
  h <- i$hat
  student <- sign(i$dev.res) * sqrt(i$dev.res^2 + h * i$pear.res^2 / (1 - h))
  stopifnot(startsWith(f$family$family, "Neg") || all.equal(if (known) student else student / i$sigma, rstudent(f)))
  out <- list(name = name, y = y, family = ours, link = link, weights = weights, shift = shift,
    coefficients = coef(f), hat = h, sigma = i$sigma, residual_standardized = i$dev.res / sqrt(phi * (1 - h)),
    residual_standardized_pearson = i$pear.res / sqrt(phi * (1 - h)),
    residual_studentized = if (known) student else student / i$sigma,
    cooks_distance = cooks.distance(f, dispersion = phi), dffits = dffits(f, infl = i), covariance_ratio = covratio(f, infl = i),
    dfbeta = i$coefficients, dfbetas = dfbetas(f, infl = i), dispersion = phi)
  if (drawn) {
    set.seed(7); out$uniform <- runif(N)
    set.seed(7)
    if (startsWith(f$family$family, "Neg")) f$theta <- 2
    out$quantile <- if (known) qresiduals(f) else qresiduals(f, dispersion = phi)
  }
  lapply(out, unname)
}

nb <- negative.binomial(2)
cases <- list(
  case("gaussian weights offset", "normal", gaussian(), "gaussian", "identity", "w", 1),
  case("binomial trials offset", "success", binomial(), "binomial", "logit", "trials", 1, TRUE),
  case("binomial cloglog single", "single", binomial("cloglog"), "binomial", "cloglog", known = TRUE),
  case("poisson weights", "count", poisson(), "poisson", "log", "w0", 1, TRUE),
  case("gamma inverse", "positive", Gamma(), "gamma", "inverse", "w", 1),
  case("inverse gaussian", "positive", inverse.gaussian("log"), "inverse_gaussian", "log"),
  case("negative binomial", "wide", nb, "negative_binomial", "log", "one", 1, TRUE),
  case("quasipoisson", "count", quasipoisson(), "quasipoisson", "log", "w", 1, drawn = FALSE)
)

# ---- score tests -------------------------------------------------------------------------------------------------------

dean <- function(f, binomial) { # by whole matrices, from the definition
  X <- model.matrix(f); mu <- fitted(f); w <- f$prior.weights; y <- f$y
  H <- diag(sqrt(f$weights)) %*% X %*% solve(t(X) %*% diag(f$weights) %*% X) %*% t(X) %*% diag(sqrt(f$weights))
  h <- diag(H)
  if (binomial) {
    k <- w * y
    return(sum(((k - w * mu)^2 + mu * (k - w * mu) - k * (1 - mu)) / (mu * (1 - mu)) + h * w) / sqrt(2 * sum(w * (w - 1))))
  }
  sum((y - mu)^2 - y + h * mu) / sqrt(2 * sum(mu^2))
}
broek <- function(f, p0, score) { # of zeros: p0, and the score of eta at zero
  X <- model.matrix(f)
  c <- t(X) %*% score
  S <- sum((f$y == 0) / p0 - 1)
  V <- sum(1 / p0 - 1) - t(c) %*% solve(t(X) %*% diag(f$weights) %*% X) %*% c
  as.numeric(S / sqrt(V))
}
excess <- function(f, p0, score) { # He and others (2019): zeros observed less expected
  X <- model.matrix(f)
  c <- t(X) %*% (p0 * score)
  as.numeric(sum((f$y == 0) - p0) / sqrt(sum(p0 * (1 - p0)) - t(c) %*% solve(t(X) %*% diag(f$weights) %*% X) %*% c))
}
P <- polished("wide", poisson(), "one", 1); Q <- polished("inflated", poisson(), "one", 0)
R <- polished("inflated", poisson("sqrt"), "one", 0); B <- polished("success", binomial(), "trials", 1)
M <- polished("wide", nb, "one", 1)
mean_only <- glm(inflated ~ 1, poisson, rows)
n0 <- sum(rows$inflated == 0); p0 <- exp(-mean(rows$inflated))
tests <- list(
  list(y = "wide", family = "poisson", link = "log", weights = "one", shift = 1, z = dean(P, FALSE), zeros = sum(P$y == 0),
       expected = sum(exp(-fitted(P))), score_z = broek(P, exp(-fitted(P)), -fitted(P)),
       excess_z = excess(P, exp(-fitted(P)), -fitted(P))),
  list(y = "inflated", family = "poisson", link = "log", weights = "one", shift = 0, z = dean(Q, FALSE), zeros = sum(Q$y == 0),
       expected = sum(exp(-fitted(Q))), score_z = broek(Q, exp(-fitted(Q)), -fitted(Q)),
       excess_z = excess(Q, exp(-fitted(Q)), -fitted(Q))),
  list(y = "inflated", family = "poisson", link = "sqrt", weights = "one", shift = 0, z = dean(R, FALSE), zeros = sum(R$y == 0),
       expected = sum(exp(-fitted(R))), score_z = broek(R, exp(-fitted(R)), -2 * sqrt(fitted(R))),
       excess_z = excess(R, exp(-fitted(R)), -2 * sqrt(fitted(R)))),
  list(y = "success", family = "binomial", link = "logit", weights = "trials", shift = 1, z = dean(B, TRUE)),
  list(y = "wide", family = "negative_binomial", link = "log", weights = "one", shift = 1, zeros = sum(M$y == 0),
       expected = sum(dnbinom(0, mu = fitted(M), size = 2)),
       score_z = broek(M, dnbinom(0, mu = fitted(M), size = 2), -fitted(M) / (1 + fitted(M) / 2)),
       excess_z = excess(M, dnbinom(0, mu = fitted(M), size = 2), -fitted(M) / (1 + fitted(M) / 2)))
)
van_den_broek <- (n0 - N * p0)^2 / (N * p0 * (1 - p0) - N * mean(rows$inflated) * p0^2) # as in vcdExtra's zero.test

# ---- tails -------------------------------------------------------------------------------------------------------------

gamma_tails <- expand.grid(a = c(0.2, 1, 3.5, 60, 4000), ratio = c(1e-8, 0.01, 0.5, 1, 2, 40, 900))
gamma_tails$x <- gamma_tails$a * gamma_tails$ratio
gamma_tails$lower <- pgamma(gamma_tails$x, gamma_tails$a, log.p = TRUE)
gamma_tails$upper <- pgamma(gamma_tails$x, gamma_tails$a, lower.tail = FALSE, log.p = TRUE)
beta_tails <- expand.grid(a = c(0.5, 3, 90, 2000), b = c(1, 7.5, 300), x = c(1e-7, 0.01, 0.4, 0.93, 0.9999))
beta_tails$lower <- pbeta(beta_tails$x, beta_tails$a, beta_tails$b, log.p = TRUE)
# a Tweedie variable as a Poisson number of gamma variables
tweedie <- expand.grid(y = c(0, 0.05, 0.7, 3, 20, 90), mu = c(0.4, 2, 11), power = c(1.1, 1.5, 1.9), phi = c(0.3, 2))
compound <- function(y, mu, power, phi, upper) {
  n <- 1:20000; lambda <- mu^(2 - power) / (phi * (2 - power))
  p <- pgamma(y, n * (2 - power) / (power - 1), scale = phi * (power - 1) * mu^(power - 1), lower.tail = !upper)
  sum(dpois(n, lambda) * p) + if (upper) 0 else exp(-lambda)
}
tweedie$upto <- mapply(compound, tweedie$y, tweedie$mu, tweedie$power, tweedie$phi, FALSE)
tweedie$after <- mapply(compound, tweedie$y, tweedie$mu, tweedie$power, tweedie$phi, TRUE)
far <- list( # out, where probabilities are less than the smallest number
  wald = data.frame(y = c(0.01, 0.5, 4, 60), lower = pinvgauss(c(0.01, 0.5, 4, 60), 1.3, dispersion = 0.4, log.p = TRUE),
                    upper = pinvgauss(c(0.01, 0.5, 4, 60), 1.3, dispersion = 0.4, lower.tail = FALSE, log.p = TRUE)),
  poisson = data.frame(y = c(0, 40, 3000), after = ppois(c(0, 40, 3000), 2, lower.tail = FALSE, log.p = TRUE)),
  binomial = data.frame(y = c(1, 190, 1999) / 2000, after = pbinom(c(1, 190, 1999), 2000, 0.01, lower.tail = FALSE, log.p = TRUE)),
  negative_binomial = data.frame(y = c(0, 90, 9000), after = pnbinom(c(0, 90, 9000), size = 2, mu = 3, lower.tail = FALSE, log.p = TRUE))
)

write(toJSON(list(rows = rows, cases = cases, tests = tests, van_den_broek = van_den_broek, gamma = gamma_tails,
  beta = beta_tails, tweedie = tweedie, far = far), dataframe = "columns", digits = I(17), auto_unbox = TRUE, na = "null"),
  "diagnostics.json")
