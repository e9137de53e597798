# References for tests/test_ladder.py, from R. Run in tests/reference: Rscript ladder.R
#
# Published cases on which R's glm fails or has to be told where to start, at their optima. The crabs and the heart attacks are
# data and examples of the R package glm2 (Marschner 2011, The R Journal 3/2), which halves steps; the beetles are Bliss's
# (1935) and the enzyme is Treloar's (Bates and Watts 1988), both as R and Dobson's textbook have them; x = 1 to 10 is the
# example on which a log-binomial fit fails by Deddens, Petersen and Lei (2003). Each is refitted from its own estimates until
# it stays there, by short steps, since whole ones lead away again where glm goes round in circles. Optima on the boundary are fits of what is left when the rows at the boundary are held there, one coefficient
# being expressed by the others; that the score pushes outwards there is checked.

library(glm2)
stopifnot(packageVersion("glm2") >= "1.2.1")

tight <- function(X, y, w, family, start) {
  fit <- glm.fit2(X, y, weights = w, family = family, start = start, control = glm.control(1e-10, 10000))
  b <- fit$coefficients
  for (i in 1:5000) {
    fit <- suppressWarnings(glm.fit(X, y, weights = w, family = family, start = b, control = glm.control(1e-16, 1)))
    step <- fit$coefficients - b
    b <- b + step / 10
  }
  stopifnot(max(abs(step) / pmax(abs(b), 1e-3)) < 1e-11)
  fit$coefficients <- b
  fit
}
standard_errors <- function(fit, known) {
  dispersion <- if (known) 1 else sum(fit$weights * fit$residuals^2) / fit$df.residual
  unname(sqrt(dispersion * diag(chol2inv(fit$qr$qr))[order(fit$qr$pivot)]))
}
case <- function(name, X, y, family, start, weights = rep(1, length(y))) {
  fit <- tight(X, y, weights, family, start)
  known <- family$family %in% c("binomial", "poisson")
  failed <- tryCatch({
    plain <- suppressWarnings(glm.fit(X, y, weights = weights, family = family, start = start))
    !plain$converged
  }, error = function(e) TRUE)
  list(case = name, family = family$family, link = family$link, X = unname(X), y = y, weights = weights, start = start,
       coefficients = unname(fit$coefficients), errors = standard_errors(fit, known), deviance = fit$deviance,
       glm_fails_from_start = failed, boundary = FALSE)
}

counts <- function(rows) {
  d <- crabs[rows, ]
  list(X = cbind(1, d$Width - min(crabs$Width), d$Dark == "yes", d$GoodSpine == "yes"), y = d$Satellites)
}
first <- counts(seq_len(nrow(crabs)))
periodic <- counts(crabs$Rep1)
aperiodic <- counts(crabs$Rep2)
risk <- model.matrix(~ factor(AgeGroup) + factor(Severity) + factor(Delay) + factor(Region), heart)
mean_risk <- sum(heart$Deaths) / sum(heart$Patients)
killed <- c(6, 13, 18, 28, 52, 53, 61, 60)
beetles <- c(59, 60, 62, 56, 63, 59, 62, 60)
dose <- cbind(1, c(1.6907, 1.7242, 1.7552, 1.7842, 1.8113, 1.8369, 1.8610, 1.8839))
treated <- Puromycin[Puromycin$state == "treated", ]
death <- case("heart", risk, heart$Deaths / heart$Patients, binomial("log"), c(log(mean_risk), rep(0, 8)), heart$Patients)

# An optimum on the boundary; push: the multiplier of its row, positive where the score pushes outwards.
bounded <- function(fit, X, y, start, coefficients, push) {
  stopifnot(push > 0)
  eta <- drop(X %*% coefficients)
  list(case = fit, family = push_family$family, link = push_family$link, X = unname(X), y = y, weights = rep(1, length(y)),
       start = start, coefficients = coefficients, errors = NULL,
       deviance = sum(push_family$dev.resids(y, push_family$linkinv(eta), rep(1, length(y)))),
       glm_fails_from_start = FALSE, boundary = TRUE)
}
push_family <- poisson("identity")
# The narrowest crab is dark and has a good spine, and no satellites: the sum of three coefficients is 0.
held <- first$X[, 2] == 0 & first$X[, 3] == 1 & first$X[, 4] == 1
stopifnot(sum(held) == 1, first$y[held] == 0)
reduced <- cbind(first$X[, 1] - first$X[, 3], first$X[, 2], first$X[, 4] - first$X[, 3])[!held, ]
free <- unname(tight(reduced, first$y[!held], rep(1, sum(!held)), poisson("identity"), c(0.5, 0.5, 0.1))$coefficients)
b <- c(free[1:2], -free[1] - free[3], free[3])
push <- 1 - sum((first$y / drop(first$X %*% b) - 1)[!held])
crab <- bounded("crabs", first$X, first$y, rep(1, 4), b, push)

# eta = b (x - 10): the derivative by b has one zero.
x <- 1:10
y <- c(0, 0, 0, 0, 1, 0, 1, 1, 1, 1)
push_family <- binomial("log")
slope <- function(b) { mu <- exp(b * (x[-10] - 10)); sum((y[-10] - mu) / (1 - mu) * (x[-10] - 10)) }
b <- uniroot(slope, c(0.01, 2), tol = 1e-15)$root
mu <- exp(b * (x[-10] - 10))
push <- sum((y[-10] - mu) / (1 - mu)) + 1 # raising the intercept would help
prevalence <- bounded("prevalence", cbind(1, x), y, c(-4, 0), c(-10 * b, b), push)

cases <- list(
  crab,
  case("crabs_periodic", periodic$X, periodic$y, poisson("identity"), rep(1, 4)),
  case("crabs_aperiodic", aperiodic$X, aperiodic$y, poisson("identity"), rep(1, 4)),
  death,
  prevalence,
  case("beetles_cloglog", dose, killed / beetles, binomial("cloglog"), c(-39.5, 22), beetles),
  case("beetles_cauchit", dose, killed / beetles, binomial("cauchit"), c(-60, 34), beetles),
  case("enzyme", cbind(1, 1 / treated$conc), treated$rate, gaussian("inverse"), c(0.005, 0.0003)),
  case("stopping", cbind(1, cars$speed), cars$dist - 10, gaussian("log"), c(1, 0.1))
)
for (made in cases) cat(made$case, signif(made$coefficients, 8), made$deviance, made$glm_fails_from_start, "\n")
written <- function(made) { # matrices by rows
  made$X <- lapply(seq_len(nrow(made$X)), function(i) unname(made$X[i, ]))
  made
}
writeLines(jsonlite::toJSON(list(cases = lapply(cases, written)), auto_unbox = TRUE, digits = NA, null = "null"), "ladder.json")
