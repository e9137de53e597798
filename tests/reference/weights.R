# What weights of each kind mean in R, for tests/test_weights.py: glm of repeated rows, and svyglm. Run after robust.R, whose data
# it uses. Writes weights.json beside itself.
suppressMessages({library(sandwich); library(survey); library(MASS); library(jsonlite)})
options(warn = -1)
data <- fromJSON("tests/reference/robust.json")$data
d <- with(data, data.frame(group, x, z, w = weights, o = offset, trials, f = frequency))
family <- list(gaussian_identity = gaussian(), binomial_logit = binomial(), poisson_log = poisson(), gamma_log = Gamma("log"),
  negative_binomial_log = negative.binomial(2))
tight <- glm.control(epsilon = 1e-15, maxit = 200)
lower <- function(v) unname(v[lower.tri(v, TRUE)])

cases <- list()
for (name in names(family)) for (part in c("all", "a", "b", "c")) {
  response <- sub("_[a-z]+$", "", name)
  d$y <- data$y[[response]]
  here <- if (part == "all") d else d[d$group == part, ]
  repeated <- here[rep(seq_len(nrow(here)), here$f), ]
  formula <- if (response == "binomial") cbind(y * trials, (1 - y) * trials) ~ x + z + offset(o) else y ~ x + z + offset(o)
  start <- NULL
  for (i in 1:20) { m <- glm(formula, family[[name]], repeated, control = tight, start = start); start <- coef(m) }
  known <- response %in% c("binomial", "poisson", "negative_binomial")
  s <- if (known) summary(m, dispersion = 1) else summary(m)
  ll <- logLik(m)
  rank <- m$rank + if (known) 0 else 1               # MASS's family counts a dispersion that glm.nb does not
  frequency <- list(coefficients = unname(coef(m)), covariance = lower(s$cov.scaled), deviance = m$deviance,
    null_deviance = m$null.deviance, log_likelihood = if (response == "negative_binomial") sum(dnbinom(repeated$y, 2, mu = fitted(m), log = TRUE)) else as.numeric(ll),
    df_residual = m$df.residual, df_null = m$df.null, dispersion = s$dispersion, n_obs = nrow(repeated), n_parameters = rank,
    HC0 = lower(vcovHC(m, "HC0")), HC1 = lower(vcovHC(m, "HC1")), HC3 = lower(vcovHC(m, "HC3")))
  here <- here[here$w > 0, ]
  start <- NULL
  for (i in 1:20) {
    m <- svyglm(formula, svydesign(ids = ~1, weights = ~w, data = here), family = family[[name]], control = tight, start = start)
    start <- coef(m)
  }
  s <- summary(m)
  sampling <- list(coefficients = unname(coef(m)), covariance = lower(vcov(m)), deviance = m$deviance,
    null_deviance = m$null.deviance, df_residual = m$df.residual, dispersion = as.numeric(s$dispersion),
    p_values = unname(s$coefficients[, 4]), interval = unname(confint(m)[2, ]))
  cases[[length(cases) + 1]] <- list(name = name, part = part, frequency = frequency, sampling = sampling)
}
writeLines(toJSON(list(cases = cases), digits = NA, auto_unbox = TRUE), "tests/reference/weights.json")
