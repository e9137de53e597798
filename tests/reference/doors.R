# References for tests/test_doors.py, from R. Run in tests/reference: Rscript doors.R
#
# `glm` finds aliased columns at its default epsilon of 1e-8; these are left out, and the fit is run at epsilon 1e-14 and
# then again from its own estimates until nothing but rounding changes. Everything else is R's own word: summary.glm,
# logLik, AIC, BIC, residuals, predict. Where the dispersion is estimated, intervals have t quantiles.

suppressPackageStartupMessages(library(MASS))
RNGkind("Mersenne-Twister", "Inversion", "Rejection")
for (made in parse("generate.R")) { # its writers of JSON
  if (identical(made[[1]], as.name("<-")) && as.character(made[[2]])[1] %in% c("number", "scalar", "json", "each")) eval(made)
}

# ---- data --------------------------------------------------------------------------------------------------------------

set.seed(4711)
N <- 60
rows <- data.frame(
  x = round(runif(N) * 64) / 64, z = round(rnorm(N) * 32) / 32, f = rep(c("b", "a", "c"), N / 3),
  g = rep(c("low", "high", "low", "low", "high"), N / 5), b = runif(N) < 0.4, t = round(runif(N, 1, 9), 1),
  o = round(runif(N, -0.2, 0.3), 2), w = sample(2:24, N, TRUE) / 8, v = sample(1:4, N, TRUE) / 2
)
rows$double <- 1 - 2 * rows$x
rows$w0 <- ifelse(seq_len(N) %in% c(3, 17, 18, 40), 0, rows$w)
eta <- with(rows, 0.4 + 0.8 * x - 0.5 * (g == "low") + 0.3 * (f == "c"))
rows$y <- round(eta + rnorm(N) / sqrt(rows$w), 3)
rows$positive <- pmax(round(rgamma(N, 5, scale = exp(eta) / 5), 3), 0.05)
rows$count <- rpois(N, exp(eta + log(rows$t) / 2))
rows$wide <- rnegbin(N, 3 * exp(eta), theta = 2)
trials <- sample(3:12, N, TRUE)
rows$s <- rbinom(N, trials, plogis(eta - 0.5))
rows$fail <- trials - rows$s
rows$label <- ifelse(runif(N) < plogis(2 * (eta - 0.7)), "yes", "no")
rows$flag <- rows$label == "yes"
holes <- function(column, at) replace(rows[[column]], at, NA)
rows$x_na <- holes("x", c(5, 30))
rows$g_na <- holes("g", c(5, 11, 59))
rows$count_na <- holes("count", 22)
rows$w_na <- holes("w", 47)
rows$t_na <- holes("t", c(2, 30))

new <- data.frame(
  x = c(0.1, 0.35, 0.6, 0.9, 0.5), z = c(-1, 0, 0.5, 1, 2), f = c("a", "b", "c", "a", "c"),
  g = c("low", "low", "high", "high", "low"), b = c(TRUE, FALSE, FALSE, TRUE, TRUE), t = c(1, 2, 3, 5, 8),
  o = c(0, 0.1, -0.1, 0.2, 0)
)
new$double <- 1 - 2 * new$x
new$x_na <- new$x
new$g_na <- new$g
new$t_na <- new$t

contraception <- read.csv("../../jaxglm/datasets/contraception.csv", stringsAsFactors = FALSE)
contraception$use <- factor(contraception$use)
new_women <- data.frame(age = c(-10, 0, 4.5, 12), urban = c("Y", "N", "N", "Y"), livch = c("0", "3+", "1", "2"))

# ---- fits --------------------------------------------------------------------------------------------------------------

families <- list(
  gaussian = gaussian(), binomial = binomial(), poisson = poisson(), gamma = Gamma("log"),
  inverse_gaussian = inverse.gaussian("log"), quasipoisson = quasipoisson(), negative_binomial = negative.binomial(2)
)
FIXED <- c("binomial", "poisson", "negative_binomial")

polished <- function(formula, family, data, weights, offset) {
  data$.w <- if (is.null(weights)) rep(1, nrow(data)) else data[[weights]]
  data$.o <- if (is.null(offset)) rep(0, nrow(data)) else offset
  environment(formula) <- environment()
  more <- if (!is.null(offset)) list(offset = quote(.o))
  call <- function(...) { # the same call every time, so that predict finds what it needs
    arguments <- c(list(formula, family, quote(data), weights = quote(.w), na.action = na.exclude), more, list(...))
    suppressWarnings(do.call(glm, arguments))
  }
  found <- call()
  stopifnot(!anyNA(coef(found)))
  for (i in 1:30) found <- call(start = coef(found), control = list(epsilon = 1e-14, maxit = 200))
  found
}

# formula: R's, without the aliased terms; terms: jaxglm's names, of which `aliased` are left out by R; show: rows to store.
case <- function(name, family, formula, terms, typed = NULL, weights = NULL, exposure = NULL, data = "rows", aliased = c(),
                 null = NULL, show = NULL) {
  table <- if (data == "rows") rows else contraception
  later <- if (data == "rows") new else new_women
  offset <- if (is.null(exposure)) NULL else log(table[[exposure]])
  here <- rep(TRUE, nrow(table))
  if (!is.null(weights)) here <- is.na(table[[weights]]) | table[[weights]] > 0 # rows of weight zero are not there
  table <- table[here, ]
  offset <- offset[here]
  fit <- polished(formula, families[[family]], table, weights, offset)
  fixed <- family %in% FIXED
  s <- if (fixed) summary(fit, dispersion = 1) else summary(fit)
  dispersion <- s$dispersion
  at <- match(terms, setdiff(terms, aliased))
  stopifnot(sum(!is.na(at)) == nrow(s$coefficients))
  C <- s$coefficients[at, , drop = FALSE]
  q <- if (fixed) qnorm(0.975) else qt(0.975, fit$df.residual)
  loglik <- logLik(fit)
  if (!is.null(null)) { # where R does not see that the columns span a constant
    without <- polished(null, families[[family]], table, weights, offset)
    fit[c("null.deviance", "df.null")] <- list(deviance(without), without$df.residual)
  }
  if (is.null(exposure)) {
    link <- predict(fit, later, type = "link", se.fit = TRUE, dispersion = dispersion)
    response <- predict(fit, later, type = "response", se.fit = TRUE, dispersion = dispersion)
    eta <- list(link = link$fit, link_error = link$se.fit, low = link$fit - q * link$se.fit, high = link$fit + q * link$se.fit)
    ends <- list(response = response$fit, response_error = response$se.fit)
  } else eta <- ends <- NULL
  spread <- function(values) { # rows of weight zero have no values here
    out <- rep(NA_real_, length(here))
    out[here] <- values
    if (is.null(show)) out else out[show]
  }
  working <- residuals(fit, "working")
  known <- naresid(fit$na.action, if (is.null(fit$offset)) 0 * fit$y else fit$offset)
  each(list(
    name = name, family = family, formula = if (is.null(typed)) deparse(formula, 200) else typed, data = data,
    weights = weights, exposure = exposure, terms = I(terms), show = if (!is.null(show)) show - 1,
    estimate = I(C[, 1]), std_error = I(C[, 2]), statistic = I(C[, 3]), p_value = I(C[, 4]),
    log10_p = I(log10_p(C[, 3], if (!fixed) fit$df.residual)),
    conf_low = I(C[, 1] - q * C[, 2]), conf_high = I(C[, 1] + q * C[, 2]),
    deviance = deviance(fit), null_deviance = fit$null.deviance, df_residual = fit$df.residual, df_null = fit$df.null,
    dispersion = dispersion, rank = fit$rank, n_obs = nobs(fit), n_dropped = length(fit$na.action),
    log_likelihood = as.numeric(loglik), aic = AIC(fit), bic = if (is.na(loglik)) NA else BIC(fit),
    fitted = spread(fitted(fit)), linear_predictor = spread(naresid(fit$na.action, fit$linear.predictors)),
    residuals = list(
      deviance = spread(residuals(fit, "deviance")), pearson = spread(residuals(fit, "pearson")),
      response = spread(residuals(fit, "response")), working = spread(working)
    ),
    working_weights = spread(naresid(fit$na.action, fit$weights)),
    working_response = spread(naresid(fit$na.action, fit$linear.predictors) - known + working),
    predictions = c(eta, ends)
  ))
}

log10_p <- function(statistic, df) {
  tail <- if (is.null(df)) pnorm(-abs(statistic), log.p = TRUE) else pt(-abs(statistic), df, log.p = TRUE)
  (log(2) + tail) / log(10)
}

three <- c("Intercept", "x", "g[T.low]")
cases <- list(
  case("contraception", "binomial", use ~ age + I(age^2) + urban + livch,
    c("Intercept", "age", "I(age^2)", "urban[T.Y]", "livch[T.1]", "livch[T.2]", "livch[T.3+]"),
    data = "contraception", show = seq(7, 1934, 47)),
  case("cbind", "binomial", cbind(s, fail) ~ x + g, three),
  case("cbind weighted", "binomial", cbind(s, fail) ~ x + g, three, weights = "v"),
  case("text response", "binomial", I(label == "yes") ~ x + g, three, "label ~ x + g"),
  case("logical response", "binomial", flag ~ x + g, three),
  case("gamma weighted", "gamma", positive ~ x + g, three, weights = "w"),
  case("offset in the formula", "poisson", count ~ x + g + offset(log(t)), three),
  case("exposure", "poisson", count ~ x + g, three, exposure = "t"),
  case("gaussian weighted", "gaussian", y ~ x + g, three, weights = "w"),
  case("gaussian plain", "gaussian", y ~ x + g, three),
  case("quasipoisson", "quasipoisson", count ~ x + g, three),
  case("inverse gaussian", "inverse_gaussian", positive ~ x + g, three),
  case("negative binomial", "negative_binomial", wide ~ x + g, three),
  case("aliased", "gaussian", y ~ x + g, c("Intercept", "x", "double", "g[T.low]"), "y ~ x + double + g", aliased = "double"),
  case("interaction", "poisson", count ~ f * z + poly(x, 2), c(
    "Intercept", "f[T.b]", "f[T.c]", "z", "poly(x, 2)[1]", "poly(x, 2)[2]", "f[T.b]:z", "f[T.c]:z"
  )),
  case("logical covariate", "poisson", count ~ x + b, c("Intercept", "x", "b")),
  case("missing", "poisson", count_na ~ x_na + g_na, c("Intercept", "x_na", "g_na[T.low]"),
    weights = "w_na", exposure = "t_na"),
  case("zero weights", "gaussian", y ~ x + g, three, weights = "w0"),
  case("no intercept", "gaussian", y ~ 0 + x + z + o, c("x", "z", "o")),
  case("spans a constant", "gaussian", y ~ 0 + f, c("f[a]", "f[b]", "f[c]"), null = y ~ 1),
  case("no intercept, offset", "poisson", count ~ 0 + x + z + t + offset(o), c("x", "z", "t"))
)
# Where d is 1, every response is the family's least or largest; the other rows decide what is finite.
separated <- lapply(c("binomial", "poisson"), function(name) {
  d <- rep(0:1, c(20, 10))
  y <- if (name == "poisson") ifelse(d == 1, 0, rows$count[1:30]) else pmax(d, as.numeric(rows$flag[1:30]))
  all <- data.frame(x = rows$x[1:30], d = d, y = y)
  rest <- polished(y ~ x, families[[name]], all[d == 0, ], NULL, NULL)
  each(list(
    family = name, rows = as.list(all), coefficients = coef(rest), errors = sqrt(diag(vcov(rest))), deviance = deviance(rest),
    null_deviance = deviance(polished(y ~ 1, families[[name]], all, NULL, NULL)), log_likelihood = as.numeric(logLik(rest)),
    fitted = fitted(rest)
  ))
})
extreme <- list(z50 = log10_p(50, NULL), t80_30 = log10_p(80, 30))
both <- list(
  cases = cases, rows = as.list(rows), new = as.list(new), new_women = as.list(new_women), separated = separated,
  extreme = each(extreme)
)
cat(json(both), "\n", sep = "", file = "doors.json")
