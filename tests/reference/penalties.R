# References for tests/test_penalties.py, from glmnet. Run in tests/reference: Rscript penalties.R (see README.md).
#
# glmnet's own thresholds leave errors of 1e-5 and more: here 1e-20, and for families as objects 1e-18 with
# as many steps as it takes, since those under links that are not canonical are of first order. Coefficients are the intercept's and the columns'.

suppressPackageStartupMessages({
  library(glmnet)
  library(MASS)
  library(statmod)
})
RNGkind("Mersenne-Twister", "Inversion", "Rejection")
set.seed(3)
glmnet.control(epsnr = 1e-18, mxitnr = 1000)

number <- function(x) {
  text <- rep("null", length(x))
  known <- which(is.finite(x))
  short <- sprintf("%.15g", x[known])
  text[known] <- ifelse(as.numeric(short) == x[known], short, sprintf("%.17g", x[known]))
  text
}
json <- function(x) {
  if (is.null(x)) return("null")
  if (is.matrix(x)) return(paste0("[", paste(apply(x, 1, json), collapse = ",\n"), "]"))
  if (is.list(x)) return(paste0("{", paste(sprintf('"%s":%s', names(x), vapply(x, json, "")), collapse = ",\n"), "}"))
  if (is.character(x)) return(sprintf('"%s"', x))
  if (length(x) == 1) number(x) else paste0("[", paste(number(x), collapse = ","), "]")
}

n <- 50
z <- rnorm(n)
X <- cbind(
  a = z, b = 3 + 2 * (0.9 * z + 0.4 * rnorm(n)), c = runif(n), d = rep(0:1, n / 2), e = rexp(n), f = 100 + 5 * rnorm(n),
  k = 7 # constant
)
X <- round(X, 6)
eta <- 0.5 + 0.5 * X[, "a"] - 0.4 * X[, "d"] + 0.3 * X[, "e"]
w <- sample(1:6, n, replace = TRUE) / 2
trials <- sample(3:9, n, replace = TRUE)
o <- round(runif(n, -0.3, 0.3), 6)
responses <- list(
  gaussian = round(eta + rnorm(n), 6), binary = rbinom(n, 1, plogis(eta - 0.5)), proportion = rbinom(n, trials, plogis(eta)) / trials,
  count = rpois(n, exp(eta)), positive = round(rgamma(n, 4, 4 / exp(eta)), 6) + 1e-3
)
families <- list(
  gaussian = list(gaussian(), "gaussian"), binomial = list(binomial(), "binary"), proportion = list(binomial(), "proportion"),
  poisson = list(poisson(), "count"), probit = list(binomial("probit"), "binary"), gamma = list(Gamma("log"), "positive"),
  negative_binomial = list(negative.binomial(2), "count"), sqrt = list(poisson("sqrt"), "count")
)
cases <- list(
  plain = list(alpha = 1),
  both = list(alpha = 1, weights = TRUE, offset = TRUE),
  factors = list(alpha = 0.6, weights = TRUE, offset = TRUE, penalty.factor = c(1, 2, 0, 1, 0.5, 1, 1)),
  raw = list(alpha = 0.3, weights = TRUE, offset = TRUE, standardize = FALSE),
  ridge = list(alpha = 0)
)

fit <- function(family, y, case, lambda) {
  trial <- identical(y, responses$proportion)
  arguments <- list(
    X, y, family = family, alpha = case$alpha, thresh = 1e-20, maxit = 1e6, standardize = !identical(case$standardize, FALSE),
    weights = if (!is.null(case$weights)) w * (if (trial) trials else 1) else if (trial) trials else rep(1, n)
  )
  if (!is.null(case$offset)) arguments$offset <- o
  if (!is.null(case$penalty.factor)) arguments$penalty.factor <- case$penalty.factor
  if (is.null(lambda)) arguments$nlambda <- 3 else arguments$lambda <- lambda
  suppressWarnings(do.call(glmnet, arguments))
}

out <- list(X = X, w = w, trials = trials, o = o, responses = responses, fits = list())
for (name in names(families)) {
  family <- families[[name]][[1]]
  y <- responses[[families[[name]][[2]]]]
  for (case in names(cases)) {
    if (name %in% c("probit", "gamma", "sqrt") && !(case %in% c("both", "raw"))) next
    first <- fit(family, y, cases[[case]], NULL)$lambda[1]
    lambda <- first * c(1.5, 0.3, 0.1, 0.03, 0.003) # at the first itself glmnet may be a rounding error off zero
    found <- fit(family, y, cases[[case]], lambda)
    out$fits[[paste(name, case, sep = "-")]] <- list(
      response = families[[name]][[2]], largest = first, lambda = lambda, coefficients = t(as.matrix(coef(found))),
      explained = found$dev.ratio, null_deviance = found$nulldev, nonzero = found$df
    )
  }
}

# glmnet's own gaussian: the ridge part is relative to y's standard deviation.
y <- responses$gaussian
own <- glmnet(X, y, family = "gaussian", alpha = 0.5, lambda = c(0.5, 0.1, 0.01), thresh = 1e-20, maxit = 1e6)
out$own_gaussian <- list(lambda = own$lambda, coefficients = t(as.matrix(coef(own))))

# No intercept.
bare <- glmnet(X[, 1:5], responses$count, family = poisson(), intercept = FALSE, offset = o, thresh = 1e-20, lambda = c(0.3, 0.05))
out$bare <- list(lambda = bare$lambda, coefficients = t(as.matrix(coef(bare)))[, -1], null_deviance = bare$nulldev)

# Cross-validation.
fold <- rep(1:5, length.out = n)
for (name in c("gaussian", "binomial", "poisson")) {
  y <- responses[[families[[name]][[2]]]]
  lambda <- out$fits[[paste0(name, "-both")]]$largest * c(1.2, 0.5, 0.2, 0.08, 0.03)
  cv <- cv.glmnet(X, y, family = families[[name]][[1]], weights = w, offset = o, lambda = lambda, foldid = fold, thresh = 1e-20, maxit = 1e6)
  out$cross[[name]] <- list(
    lambda = lambda, mean = cv$cvm, error = cv$cvsd, lambda_min = cv$lambda.min, lambda_1se = cv$lambda.1se
  )
}
cat(json(out), "\n", file = "penalties.json", sep = "")
