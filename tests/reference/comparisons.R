# References for tests/test_comparisons.py, test_hypotheses.py, test_score_scans.py and test_effects.py, from R. Run in
# tests/reference: Rscript comparisons.R
#
# Models are fitted at epsilon 1e-14 without their aliased columns, and again from their own estimates 30 times. Tests are R's own words: anova, statmod's glm.scoretest,
# car's linearHypothesis, p.adjust, qvalue. For MASS's negative.binomial, whose theta is known, the dispersion is given as 1, as
# summary of glm.nb has it. Average effects are written out from their definition and differentiated by numDeriv.

suppressPackageStartupMessages({library(MASS); library(car); library(statmod); library(qvalue); library(numDeriv)})
RNGkind("Mersenne-Twister", "Inversion", "Rejection")
for (made in parse("generate.R")) { # its writers of JSON
  if (identical(made[[1]], as.name("<-")) && as.character(made[[2]])[1] %in% c("number", "scalar", "json", "each")) eval(made)
}
tight <- glm.control(epsilon = 1e-14, maxit = 200)

set.seed(271828)
N <- 72
rows <- data.frame(
  x = round(runif(N, 0.1, 1.1) * 64) / 64, z = round(rnorm(N) * 32) / 32, f = rep(c("b", "a", "c"), N / 3),
  w = sample(2:24, N, TRUE) / 8, o = round(runif(N, -0.2, 0.3), 2), g = rep(c("low", "high"), each = N / 2)
)
rows$d <- 1 - 2 * rows$x
eta <- with(rows, 0.3 + 0.6 * x - 0.2 * z + 0.1 * z^2 + 0.3 * (f == "c"))
rows$normal <- round(eta + rnorm(N) / 2, 3)
rows$positive <- pmax(round(rgamma(N, 5, scale = exp(eta) / 5), 3), 0.05)
rows$count <- rpois(N, exp(eta))
rows$wide <- rnegbin(N, 2 * exp(eta), theta = 2)
rows$binary <- rbinom(N, 1, plogis(eta - 0.4))
features <- cbind(rbinom(N, 2, 0.3), rbinom(N, 2, 0.5), round(rnorm(N), 2), 1000 + rbinom(N, 3, 0.4), rbinom(N, 2, 0.2))

cases <- list(
  list("gaussian", "normal", gaussian(), NULL, NULL), list("gaussian", "normal", gaussian(), "w", "o"),
  list("binomial", "binary", binomial(), NULL, "o"), list("binomial", "binary", binomial("cloglog"), NULL, NULL),
  list("poisson", "count", poisson(), "w", "o"), list("poisson", "count", poisson("sqrt"), NULL, NULL),
  list("gamma", "positive", Gamma("log"), "w", NULL), list("inverse_gaussian", "positive", inverse.gaussian("log"), NULL, "o"),
  list("quasipoisson", "count", quasipoisson(), NULL, "o"), list("negative_binomial", "wide", negative.binomial(2), "w", "o")
)

fitted_model <- function(case, right) {
  rows$weight <- if (is.null(case[[4]])) rep(1, N) else rows[[case[[4]]]]
  rows$known <- if (is.null(case[[5]])) rep(0, N) else rows[[case[[5]]]]
  formula <- as.formula(paste(case[[2]], "~", right))
  fit <- function(start) suppressWarnings(eval(substitute(
    glm(formula, family, rows, weights = weight, offset = known, control = tight, start = start),
    list(formula = formula, family = case[[3]], start = start)
  )))
  found <- fit(NULL)
  for (i in 1:30) found <- fit(coef(found))
  found
}
phi_of <- function(case) if (case[[1]] == "negative_binomial") 1 else NULL
numbers <- function(values) unname(as.numeric(values))

tested <- function(table, which) {
  keep <- !is.na(table$Df)
  p <- table[[ncol(table)]][keep]
  statistic <- if (which == "F") table$F[keep] else table[[if (which == "Rao") "Rao" else "Deviance"]][keep]
  list(df = numbers(table$Df[keep]), raw = numbers(statistic), p = numbers(p))
}

effect_of <- function(fit, mean_at, V) {
  h <- function(b) mean(mean_at(b))
  gradient <- numDeriv::grad(h, coef(fit), method.args = list(eps = 1e-3, r = 6))
  numbers(c(h(coef(fit)), sqrt(drop(gradient %*% V %*% gradient))))
}

effects_of <- function(fit, case, V) {
  known <- if (is.null(case[[5]])) 0 else rows[[case[[5]]]]
  X <- function(data) model.matrix(~ x + z + f + I(z^2), data)
  eta <- function(b, data) drop(X(data) %*% b) + known
  mu <- function(b, data) case[[3]]$linkinv(eta(b, data))
  along <- function(name) { # d eta / d name, exactly
    X0 <- X(rows) * 0
    if (name == "x") X0[, "x"] <- 1 else { X0[, "z"] <- 1; X0[, "I(z^2)"] <- 2 * rows$z }
    X0
  }
  slope <- function(name) function(b) case[[3]]$mu.eta(eta(b, rows)) * drop(along(name) %*% b)
  at <- function(name, value) { data <- rows; data[[name]] <- value; data }
  f_at <- function(level) { data <- rows; data$f <- factor(level, c("a", "b", "c")); data }
  against <- function(high, low) function(b) mu(b, high) - mu(b, low)
  list(
    x = effect_of(fit, slope("x"), V), z = effect_of(fit, slope("z"), V),
    fb = effect_of(fit, against(f_at("b"), f_at("a")), V), fc = effect_of(fit, against(f_at("c"), f_at("a")), V),
    x_more = effect_of(fit, against(at("x", rows$x + 0.5), rows), V), z_pair = effect_of(fit, against(at("z", 1), at("z", -1)), V)
  )
}

one_case <- function(case) {
  rows$f <<- factor(rows$f)
  phi <- phi_of(case)
  full <- fitted_model(case, "x + z + f + I(z^2)")
  phi_used <- summary(full, dispersion = phi)$dispersion
  V <- summary(full, dispersion = phi)$cov.scaled
  known <- phi_used == 1
  pair <- fitted_model(case, "x + f")
  main <- if (known) "LRT" else "F"
  drops <- lapply(c("x", "z", "f", "I(z^2)"), function(term) {
    less <- fitted_model(case, paste(setdiff(c("x", "z", "f", "I(z^2)"), term), collapse = " + "))
    out <- lapply(c("LRT", if (!known) "F", "Rao"), function(t) tested(anova(less, full, dispersion = phi, test = t), t))
    names(out) <- c("lr", if (!known) "f", "score")
    c(out, list(deviance = numbers(less$deviance), aic = numbers(AIC(less))))
  })
  steps <- lapply(c("1", "x", "x + z", "x + z + f"), function(right) fitted_model(case, right))
  sequence <- lapply(c("LRT", if (!known) "F", "Rao"), function(t) {
    tested(anova(steps[[1]], steps[[2]], steps[[3]], steps[[4]], full, dispersion = phi, test = t), t)
  })
  names(sequence) <- c("lr", if (!known) "f", "score")
  both <- lapply(c("LRT", if (!known) "F", "Rao"), function(t) tested(anova(pair, full, dispersion = phi, test = t), t))
  names(both) <- c("lr", if (!known) "f", "score")
  hypothesis <- c("x = z", "fb - 2 * fc = 0.5")
  joint <- function(test) {
    table <- linearHypothesis(full, hypothesis, test = test, vcov. = V)
    numbers(c(table$Df[2], table[[test]][2], table[[4]][2]))
  }
  K <- rbind(c(0, 1, -1, 0, 0, 0), c(0, 0, 0, 1, -2, 0))
  null <- fitted_model(case, "x + f")
  z <- glm.scoretest(null, features, dispersion = phi)
  found <- list(
    family = scalar(case[[1]]), link = scalar(case[[3]]$link), y = scalar(case[[2]]),
    weights = if (is.null(case[[4]])) "" else case[[4]], offset = if (is.null(case[[5]])) "" else case[[5]],
    dispersion = scalar(phi_used), drops = drops, sequence = sequence, pair = both, chisq = joint("Chisq"),
    contrasts = numbers(c(K %*% coef(full), sqrt(diag(K %*% V %*% t(K))))), score = numbers(z), effects = effects_of(full, case, V)
  )
  if (!known) found$f <- joint("F")
  found
}

# ---- women by district: what the levels of each term add, separated districts and absent levels included -----------------

women <- read.csv("../../jaxglm/datasets/contraception.csv", stringsAsFactors = FALSE)
X <- model.matrix(~ age + urban + livch, women)
y <- as.numeric(women$use == "Y")
columns <- list(age = 2, urban = 3, livch = 4:6)
fit_columns <- function(inside, kept) {
  M <- X[inside, kept, drop = FALSE]
  q <- qr(M, tol = 1e-11)
  M <- M[, q$pivot[seq_len(q$rank)], drop = FALSE]
  fit <- suppressWarnings(glm.fit(M, y[inside], family = binomial(), control = glm.control(epsilon = 1e-15, maxit = 100)))
  list(deviance = fit$deviance, rank = q$rank, M = M, fit = fit)
}
districts <- lapply(sort(unique(women$district)), function(district) {
  inside <- women$district == district
  full <- fit_columns(inside, 1:6)
  less <- lapply(columns, function(gone) fit_columns(inside, setdiff(1:6, gone)))
  score <- sapply(less, function(small) {
    regression <- lm.wfit(full$M, small$fit$residuals, small$fit$weights)
    sum(small$fit$weights * small$fit$residuals^2) - sum(small$fit$weights * regression$residuals^2)
  })
  list(
    district = scalar(district), lr = sapply(less, function(small) small$deviance - full$deviance),
    df = sapply(less, function(small) full$rank - small$rank), score = score,
    small_separated = sapply(less, function(small) max(abs(small$fit$linear.predictors)) > 15)
  )
})

# ---- adjustments ----------------------------------------------------------------------------------------------------------

p <- c(round(runif(240), 6), signif(rbeta(80, 0.1, 5), 6), 0.01, 0.01)
smoothed <- qvalue(p)
adjusted <- list(
  p = p, bonferroni = p.adjust(p, "bonferroni"), holm = p.adjust(p, "holm"), hochberg = p.adjust(p, "hochberg"),
  bh = p.adjust(p, "BH"), by = p.adjust(p, "BY"), storey = smoothed$qvalues, pi0 = scalar(smoothed$pi0)
)
tails <- list(
  chisq = c(pchisq(c(3, 40, 3000), c(2, 5, 7), lower.tail = FALSE, log.p = TRUE) / log(10)),
  f = c(pf(c(3, 40, 1e60), c(2, 5, 7), c(9, 30, 20), lower.tail = FALSE, log.p = TRUE) / log(10))
)

all <- list(rows = as.list(rows), features = features, cases = lapply(cases, one_case), districts = districts,
  adjusted = adjusted, tails = tails)
cat(json(all), "\n", sep = "", file = "comparisons.json")
